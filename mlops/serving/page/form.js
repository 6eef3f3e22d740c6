// The form: one field for each column of the model, in the model's order.

import { byId, element, nameElement } from "./dom.js";
import { count, short, stepOf } from "./numbers.js";

const MANY = 20; // columns; beyond them fields are denser and there is a filter
const LONG = 22; // letters; names with more may take two lines

// Fields are told apart by their place. Names serve as keys of Maps only: any text may be one.
export class RowForm {
  constructor(columns) {
    this.fields = columns.map(makeField);
    this.places = new Map(columns.map(({ name }, place) => [name, place]));
    byId("fields").replaceChildren(...this.fields.map((field) => field.root));
    byId("fields").classList.toggle("dense", columns.length > MANY);
    byId("fields").classList.toggle("tall", columns.some(({ name }) => name.length > LONG));
    byId("filter-box").hidden = columns.length <= MANY;
    this.filter("");
  }

  // A Map of column to value; null where a field is empty.
  row() {
    return new Map(this.fields.map((field) => [field.name, field.read()]));
  }

  // Columns that `row` does not have keep their value.
  fill(row) {
    for (const field of this.fields) {
      if (!row.has(field.name)) continue;
      field.write(row.get(field.name));
      field.check();
    }
  }

  clear() {
    this.fill(new Map(this.fields.map((field) => [field.name, null])));
  }

  // The column whose field has the focus, if any.
  get focused() {
    return this.fields.find(({ control }) => control === document.activeElement)?.name;
  }

  focus(name) {
    this.fields[this.places.get(name)]?.control.focus();
  }

  get empty() {
    return this.fields.filter((field) => field.read() === null).length;
  }

  // What cannot be sent, in the shape of a server's details.
  unreadable() {
    return this.fields
      .filter((field) => field.control.validity.badInput)
      .map((field) => ({ field: field.name, message: `This must be ${field.needs}, or empty.` }));
  }

  // Puts each message at its field, moves the focus to the first, and returns the others.
  complain(details) {
    for (const field of this.fields) field.check();
    const elsewhere = [];
    const wrong = [];
    for (const { field: name, message } of details) {
      const place = this.places.get(name);
      if (place === undefined) {
        elsewhere.push(message);
      } else {
        this.fields[place].reject(message);
        wrong.push(place);
      }
    }
    if (wrong.length) {
      this.filter("");
      this.fields[Math.min(...wrong)].control.focus();
    }
    return elsewhere;
  }

  // Shows the columns with `text` in their name; the others keep their values.
  filter(text) {
    const wanted = text.trim().toLowerCase();
    let shown = 0;
    for (const field of this.fields) {
      field.root.hidden = !field.name.toLowerCase().includes(wanted);
      shown += !field.root.hidden;
    }
    byId("filter").value = text;
    byId("filter-count").textContent = `${count(shown)} of ${count(this.fields.length)} columns`;
    byId("nothing-found").hidden = shown > 0;
  }
}

function makeField(column, place) {
  const id = `field-${place}`;
  const kind = CONTROLS[column.kind](column);
  const { control } = kind;
  const hint = element("p", { id: `${id}-hint`, class: "hint" }, kind.hint);
  const note = element("p", { id: `${id}-note`, class: "note" });
  control.id = id;
  control.setAttribute("aria-describedby", `${hint.id} ${note.id}`);
  const label = element("label", { for: id }, nameElement(column.name));
  const root = element("div", { class: "field" }, label, control, element("div", {}, hint, note));

  // A doubt takes the place of the hint: were it a line more, it would push the button away from
  // under the pointer that is about to click it.
  function mark({ doubt = "", wrong = "" }) {
    hint.textContent = doubt || kind.hint;
    note.textContent = wrong;
    root.classList.toggle("doubtful", doubt !== "");
    root.classList.toggle("wrong", wrong !== "");
    control.setAttribute("aria-invalid", String(wrong !== ""));
  }
  const check = () => mark({ doubt: kind.doubt() });
  const reject = (message) => mark({ wrong: message });
  // Doubts wait until a value is complete: the 1 of 17 is no value yet.
  control.addEventListener("input", () => mark({}));
  control.addEventListener("change", check);
  return { name: column.name, root, check, reject, ...kind };
}

function numericControl(column) {
  const { min, max } = column;
  const control = element("input", { type: "number", step: stepOf(column) });
  const known = Number.isFinite(min) && Number.isFinite(max);
  const range = min === max ? `always ${short(min)}` : `${short(min)} to ${short(max)}`;
  return {
    control,
    hint: known ? range : "",
    needs: "a number",
    read: () => (control.value === "" ? null : control.valueAsNumber),
    write: (value) => {
      control.value = value === null ? "" : String(value);
    },
    doubt() {
      const value = control.valueAsNumber;
      if (!known || !(value < min || value > max)) return "";
      return min === max ? `not ${range}` : `outside ${range}`;
    },
  };
}

// The choices are told apart by their place among the levels, so no level can pass for another.
function categoricalControl({ levels }) {
  const control = element(
    "select",
    {},
    option("missing", "(not known)"),
    element("hr"),
    ...levels.map((level, place) => option(place, shownLevel(level))),
    element("hr"),
    option("other", "(something else)"),
  );
  // Any text that is no level will do.
  let other = "other";
  while (levels.includes(other)) other += "_";
  const values = new Map([["missing", null], ["other", other]]);
  levels.forEach((level, place) => values.set(String(place), level));
  return {
    control,
    hint: "",
    read: () => values.get(control.value),
    write: (value) => {
      const place = levels.indexOf(String(value));
      control.value = value === null ? "missing" : place < 0 ? "other" : String(place);
    },
    doubt: () => (control.value === "other" ? "unknown to the model" : ""),
  };
}

// Times are sent by ISO 8601, as they are described; what has no offset from UTC is taken to be UTC.
function dateControl({ min, max, whole_days: wholeDays }) {
  const [type, length] = wholeDays ? ["date", 10] : ["datetime-local", 19];
  // Without a latest one browsers take years of six digits.
  const latest = "9999-12-31T23:59:59".slice(0, length);
  const control = element("input", { type, max: latest, ...(wholeDays ? {} : { step: "1" }) });
  // Browsers leave seconds out where they are zero, and take at most three digits of a fraction.
  const cut = (text) => (text.length === 16 ? `${text}:00` : text).slice(0, length);
  const shown = (text) => cut(text).replace("T", " ");
  const range = min === max ? `always ${shown(min)}` : `${shown(min)} to ${shown(max)}`;
  return {
    control,
    hint: range,
    needs: wholeDays ? "a date" : "a date and a time",
    read: () => control.value || null,
    write: (value) => {
      control.value = value === null ? "" : cut(String(value));
    },
    doubt() {
      const value = cut(control.value);
      if (value === "" || (value >= cut(min) && value <= cut(max))) return "";
      return min === max ? `not ${range}` : `outside ${range}`;
    },
  };
}

const CONTROLS = { numeric: numericControl, categorical: categoricalControl, date: dateControl };

const option = (value, text) => element("option", { value: String(value) }, text);

const shownLevel = (level) => (level.trim() === "" ? `“${level}”` : level);
