// The prediction: the label, large, and the probabilities as bars, the most probable first.

import { byId, element, nameElement } from "./dom.js";
import { count, percent, plural } from "./numbers.js";

const SHOWN = 8; // classes; the others are folded away when there are more than a few

export function showNoAnswer() {
  const text = "Fill in what is known about one row, or start with a typical one.";
  byId("answer-body").replaceChildren(element("p", { class: "soft" }, text));
  byId("stale").hidden = true;
  byId("answer").classList.remove("stale");
  byId("brief").hidden = true;
  byId("spoken").textContent = "";
}

export function showAnswer({ predictions: [prediction], model }, empty) {
  const shares = Object.entries(prediction.probabilities).sort(([, a], [, b]) => b - a);
  const [, best] = shares[0];
  const label = String(prediction.label);
  byId("answer-body").replaceChildren(
    element("p", { class: "label" }, nameElement(label)),
    element("p", { class: "soft" }, `with probability ${percent(best)}`),
    ...bars(shares),
    element("p", { class: "hint" }, remark(model, empty)),
  );
  byId("stale").hidden = true;
  byId("answer").classList.remove("stale");
  byId("brief").replaceChildren(nameElement(label), ` ${percent(best)}`);
  byId("brief").hidden = false;
  byId("spoken").textContent = `Prediction: ${label}, probability ${percent(best)}`;
}

// Says that the values are no longer those the prediction was made for.
export function markStale() {
  const answered = !byId("brief").hidden;
  byId("answer").classList.toggle("stale", answered);
  byId("stale").hidden = !answered;
}

function bars(shares) {
  if (shares.length <= SHOWN + 2) return [list(shares)];
  const rest = shares.slice(SHOWN);
  const sum = rest.reduce((total, [, share]) => total + share, 0);
  const summary = `${count(rest.length)} more classes, ${percent(sum)} together`;
  return [
    list(shares.slice(0, SHOWN)),
    element("details", {}, element("summary", {}, summary), list(rest)),
  ];
}

const list = (shares) => element("ol", { class: "bars" }, ...shares.map(bar));

function bar([name, share]) {
  const fill = element("span", { class: "bar", "aria-hidden": "true" });
  fill.style.setProperty("--share", share);
  return element("li", {}, nameElement(name), element("span", {}, percent(share)), fill);
}

function remark(model, empty) {
  const version = model ? `Answered by ${model.name}, version ${model.version}.` : "";
  if (!empty) return version;
  return `${version} ${plural(empty, "value was", "values were")} not known.`.trim();
}
