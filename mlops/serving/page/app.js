// What happens when: the page's views, the questions to the server, a change of the model.

import { showAbout } from "./about.js";
import { markStale, showAnswer, showNoAnswer } from "./answer.js";
import { byId, element, nameElement } from "./dom.js";
import { RowForm } from "./form.js";
import { plural } from "./numbers.js";
import { getModel, predict, Refusal, useToken } from "./server.js";

const VIEWS = ["loading", "no-model", "locked", "trouble", "ready"];
const LOOK_AGAIN = 5_000; // milliseconds

let model = null;
let form = null;
let busy = false;
let edits = 0; // of the form's values

function show(view) {
  for (const id of VIEWS) byId(id).hidden = id !== view;
}

async function load() {
  try {
    build(await getModel());
  } catch (error) {
    explain(asRefusal(error));
  }
}

// The form keeps what was filled in where the new model has the same columns.
function build(next) {
  const filled = form?.row();
  const focused = form?.focused;
  model = next;
  const columns = Object.entries(model.columns).map(([name, column]) => ({ ...column, name }));
  form = new RowForm(columns);
  if (filled) form.fill(filled);
  byId("typical").hidden = !model.typical_row;
  showHeader(columns.length);
  showAbout(model);
  show("ready");
  form.focus(focused);
}

function showHeader(columns) {
  document.title = `Predict ${model.target} · ${model.name} ${model.version}`;
  byId("title").replaceChildren("Predict ", nameElement(model.target));
  const classes = plural(model.classes.length, "class", "classes");
  byId("subtitle").replaceChildren(
    element("span", { class: "badge" }, `${model.name} · version ${model.version}`),
    ` A neural network that tells ${classes} apart by ${plural(columns, "column")}.`,
  );
}

// Shows why there is no form, or none any more.
function explain(refusal) {
  if (refusal.status === 401) {
    askForToken();
  } else if (refusal.code === "no_model") {
    byId("no-model-reason").textContent = refusal.message;
    show("no-model");
    setTimeout(load, LOOK_AGAIN);
  } else {
    byId("trouble-text").textContent = refusal.message;
    show("trouble");
  }
}

function askForToken() {
  const tried = byId("token").value !== "";
  byId("token-note").textContent = tried ? "The server does not accept this token." : "";
  byId("token").value = "";
  show("locked");
  byId("token").focus();
}

// Asks for a prediction; once more if the model was changed and the old form no longer fits.
async function submit(mayRepeat = true) {
  const unreadable = form.unreadable();
  if (unreadable.length) return complain("Some values cannot be used.", unreadable);
  clearProblems();
  const empty = form.empty;
  const before = edits;
  try {
    const answer = await predict(form.row());
    await follow(answer.model);
    showAnswer(answer, empty);
    if (edits !== before) markStale();
  } catch (error) {
    const refusal = asRefusal(error);
    if ((await follow(refusal.model)) && mayRepeat) return submit(false);
    if (refusal.status === 401 || refusal.code === "no_model") explain(refusal);
    else complain(refusal.message, refusal.details);
  }
}

// Makes the form anew if another version answers; says whether it did.
async function follow(serving) {
  if (!serving || (serving.name === model.name && serving.version === model.version)) return false;
  const before = model.version;
  try {
    build(await getModel());
  } catch (error) {
    asRefusal(error);
    return false;
  }
  byId("notice").textContent =
    `The model was changed from version ${before} to ${model.version} while you were here. ` +
    "Your values were kept where it has the same columns.";
  byId("notice").hidden = false;
  return true;
}

function complain(message, details) {
  const elsewhere = form.complain(details);
  const box = byId("problems");
  box.replaceChildren(element("p", {}, message));
  const others = elsewhere.filter((text) => text !== message);
  if (others.length) {
    box.append(element("ul", {}, ...others.map((text) => element("li", {}, text))));
  }
  box.hidden = false;
  if (elsewhere.length === details.length) box.focus();
}

function clearProblems() {
  byId("problems").hidden = true;
  byId("problems").replaceChildren();
  form.complain([]);
}

function fillTypical() {
  // Six digits: a median may have seventeen, which say nothing more.
  const rounded = (value) => (typeof value === "number" ? Number(value.toPrecision(6)) : value);
  const typical = Object.entries(model.typical_row);
  form.fill(new Map(typical.map(([name, value]) => [name, rounded(value)])));
  changed();
}

function clear() {
  form.clear();
  edits += 1;
  clearProblems();
  showNoAnswer();
}

function changed() {
  edits += 1;
  byId("problems").hidden = true;
  markStale();
}

function asRefusal(error) {
  if (!(error instanceof Refusal)) throw error;
  return error;
}

// One question at a time; the button keeps the focus meanwhile.
async function whileBusy(button, label, work) {
  if (busy) return;
  busy = true;
  const before = button.textContent;
  button.textContent = label;
  button.setAttribute("aria-disabled", "true");
  try {
    await work();
  } finally {
    button.textContent = before;
    button.removeAttribute("aria-disabled");
    busy = false;
  }
}

function listen() {
  byId("row").addEventListener("submit", (event) => {
    event.preventDefault();
    whileBusy(byId("predict"), "Predicting …", submit);
  });
  byId("fields").addEventListener("input", changed);
  byId("typical").addEventListener("click", fillTypical);
  byId("clear").addEventListener("click", clear);
  byId("filter").addEventListener("input", ({ target }) => form.filter(target.value));
  // Enter in the filter is no wish for a prediction.
  byId("filter").addEventListener("keydown", (event) => {
    if (event.key === "Enter") event.preventDefault();
  });
  byId("retry").addEventListener("click", load);
  byId("token-form").addEventListener("submit", (event) => {
    event.preventDefault();
    if (useToken(byId("token").value.trim())) load();
    else byId("token-note").textContent = "A token is letters, digits and signs without spaces.";
  });
}

listen();
showNoAnswer();
load();
