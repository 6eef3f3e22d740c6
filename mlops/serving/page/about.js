// What is known of the model: its scores in plain words, its mistakes, where it comes from.

import { byId, element, nameElement } from "./dom.js";
import { count, percent, plural, short } from "./numbers.js";

const MOST_CLASSES = 40; // of a matrix that can be read; beyond, the most common mistakes are listed
const MISTAKES = 20;

const SCORES = [
  {
    key: "test_accuracy",
    title: "Accuracy",
    show: percent,
    words: "of rows it had never seen got the right answer",
  },
  {
    key: "test_f1",
    title: "F1 score",
    show: (value) => value.toFixed(3),
    words: "how well it finds each class, rare ones too; 1 is perfect",
  },
  {
    key: "test_loss",
    title: "Log loss",
    show: (value) => value.toFixed(3),
    words: "how far its probabilities are from the truth; 0 is perfect",
  },
];

const ORIGINS = new Map([
  ["study", "Study"],
  ["data", "Table"],
  ["data.name", "Table"],
  ["data.source", "Read from"],
  ["data.digest", "Digest of the table"],
  ["digest", "Digest of the table"],
]);

export function showAbout(model) {
  const parts = [...notices(model), scores(model), mistakes(model), origin(model)];
  byId("about-body").replaceChildren(...parts.filter(Boolean));
}

function notices({ refused, registry_error: trouble, version }) {
  const texts = [];
  if (refused) {
    texts.push(
      `Version ${refused.version} was not put into service, version ${version} keeps answering. ` +
        `The reason: ${refused.reason}`,
    );
  }
  if (trouble) texts.push(`Whether there is a newer version cannot be seen now: ${trouble}`);
  return texts.map((text) => element("p", { class: "notice" }, text));
}

function scores({ metrics, confusion_matrix: matrix }) {
  const known = SCORES.filter(({ key }) => Number.isFinite(metrics?.[key]));
  const tiles = known.map(({ key, title, show, words }) => tile(title, show(metrics[key]), words));
  if (matrix?.length) {
    const rows = matrix.map(sum);
    const share = Math.max(...rows) / sum(rows);
    const words = "would be right by always naming the most common class";
    tiles.splice(1, 0, tile("To compare", percent(share), words));
  }
  return tiles.length ? element("dl", { class: "tiles" }, ...tiles) : null;
}

const tile = (title, value, words) =>
  element(
    "div",
    { class: "card" },
    element("dt", {}, title),
    element("dd", { class: "value" }, value),
    element("dd", { class: "soft" }, words),
  );

function mistakes({ confusion_matrix: matrix, classes }) {
  if (!matrix?.length) return null;
  const rows = plural(sum(matrix.map(sum)), "test row");
  const readable = classes.length <= MOST_CLASSES;
  const broad = readable && classes.length > 12;
  const text = readable
    ? `What it made of ${rows} it had not learned from. A row for what they were, a column for what it said.`
    : `Its most common mistakes among ${rows} it had not learned from.`;
  return element(
    "section",
    { class: broad ? "card broad" : "card", "aria-labelledby": "mistakes-title" },
    element("h3", { id: "mistakes-title" }, "Where it is right and where it errs"),
    element("p", { class: "soft" }, text),
    element(
      "div",
      { class: "scroll", tabindex: "0", role: "region", "aria-labelledby": "mistakes-title" },
      readable ? confusionTable(matrix, classes) : mistakesTable(matrix, classes),
    ),
  );
}

function confusionTable(matrix, classes) {
  const longest = Math.max(...classes.map((name) => String(name).length));
  const upright = classes.length * Math.min(longest, 20) > 60; // letters beside each other
  const said = classes.map((name) =>
    element("th", { scope: "col" }, nameElement(name, { class: "name" })),
  );
  const head = element(
    "thead",
    {},
    element(
      "tr",
      {},
      element("td", {}),
      element("th", { scope: "colgroup", colspan: classes.length, class: "axis" }, "it said"),
      element("td", {}),
    ),
    element(
      "tr",
      {},
      element("th", { scope: "col", class: "axis" }, "it was"),
      ...said,
      element("th", { scope: "col", class: "axis" }, "right"),
    ),
  );
  const body = element("tbody", {}, ...matrix.map((row, actual) => matrixRow(row, actual, classes)));
  const table = element("table", { class: "matrix" }, head, body);
  table.classList.toggle("upright", upright);
  table.classList.toggle("small", classes.length > 6);
  return table;
}

function matrixRow(row, actual, classes) {
  const total = sum(row);
  const cells = row.map((number, said) => {
    const cell = element("td", { class: said === actual ? "right" : "wrong" }, count(number));
    // The square root lets a few mistakes among many rows be seen.
    const shade = total ? Math.sqrt(number / total) : 0;
    cell.style.setProperty("--shade", shade);
    cell.classList.toggle("none", number === 0);
    return cell;
  });
  const right = total ? percent(row[actual] / total) : "–";
  const name = nameElement(classes[actual], { class: "name" });
  return element(
    "tr",
    {},
    element("th", { scope: "row" }, name),
    ...cells,
    element("td", { class: "recall" }, right),
  );
}

function mistakesTable(matrix, classes) {
  const found = matrix.flatMap((row, actual) =>
    row.map((number, said) => ({ number, said, actual })),
  );
  const worst = found
    .filter(({ number, said, actual }) => number > 0 && said !== actual)
    .sort((a, b) => b.number - a.number)
    .slice(0, MISTAKES);
  if (!worst.length) return element("p", {}, "It made none.");
  const head = ["It was", "It said", "Rows"].map((text) => element("th", { scope: "col" }, text));
  const rows = worst.map(({ number, said, actual }) =>
    element(
      "tr",
      {},
      element("td", {}, nameElement(classes[actual])),
      element("td", {}, nameElement(classes[said])),
      element("td", { class: "number" }, count(number)),
    ),
  );
  return element(
    "table",
    { class: "list" },
    element("thead", {}, element("tr", {}, ...head)),
    element("tbody", {}, ...rows),
  );
}

function origin({ name, version, run_id: run, target, metrics, lineage }) {
  const facts = new Map([["Model", `${name}, version ${version}`], ["Predicts", String(target)]]);
  for (const [key, value] of flat(lineage ?? {})) facts.set(ORIGINS.get(key) ?? key, value);
  facts.set("MLflow run", String(run));
  const others = Object.entries(metrics ?? {})
    .filter(([key, value]) => !SCORES.some((score) => score.key === key) && Number.isFinite(value))
    .map(([key, value]) => [key.replaceAll("_", " "), short(value)]);
  const parts = [
    element("h3", { id: "origin-title" }, "Where it comes from"),
    element("dl", { class: "facts" }, ...[...facts].map(fact)),
  ];
  if (others.length) {
    const summary = element("summary", {}, "Other scores");
    parts.push(element("details", {}, summary, element("dl", { class: "facts" }, ...others.map(fact))));
  }
  return element("section", { class: "card", "aria-labelledby": "origin-title" }, ...parts);
}

const fact = ([term, text]) =>
  element("div", {}, element("dt", {}, term), element("dd", {}, element("bdi", {}, text)));

// Nested objects as dotted names, values that are not known left out.
function flat(values, prefix = "") {
  return Object.entries(values).flatMap(([key, value]) => {
    if (value === null || value === "") return [];
    const path = prefix + key;
    return typeof value === "object" ? flat(value, `${path}.`) : [[path, String(value)]];
  });
}

const sum = (numbers) => numbers.reduce((total, number) => total + number, 0);
