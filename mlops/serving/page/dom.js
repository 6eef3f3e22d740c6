// Elements are made here and nowhere from markup: text from the model stays text.

export const byId = (id) => document.getElementById(id);

// Children are elements or texts.
export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

// A column's, category's or class's name; one without a visible character gets a stand-in.
export function nameElement(name, attributes = {}) {
  const text = String(name);
  if (text.trim() === "") return element("em", attributes, text === "" ? "(no name)" : "(blank)");
  return element("bdi", { title: text, ...attributes }, text);
}
