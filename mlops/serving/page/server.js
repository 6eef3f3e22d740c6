// The two calls the page makes, and the token they carry.

const PATIENCE = 30_000; // milliseconds
const KEY = "mlops-token";

let token = stored();

// What the server answered instead of what was asked; status 0 if it did not answer.
export class Refusal extends Error {
  constructor(status, { code = "", message, details = [] }, model = null) {
    super(message);
    Object.assign(this, { status, code, details, model });
  }
}

export const getModel = () => ask("model");

// `row` is a Map of column to value. fromEntries takes any name as it is, `__proto__` too.
export const predict = (row) =>
  ask("predict", JSON.stringify({ rows: [Object.fromEntries(row)] }));

// Says whether the text can be a token at all: headers carry visible ASCII only.
export function useToken(text) {
  if (!/^[\x21-\x7e]+$/.test(text)) return false;
  token = text;
  try {
    sessionStorage.setItem(KEY, text);
  } catch {
    // Storage is switched off: the token lasts until the page is left.
  }
  return true;
}

function stored() {
  try {
    return sessionStorage.getItem(KEY);
  } catch {
    return null;
  }
}

async function ask(path, body) {
  const headers = { Accept: "application/json" };
  if (token) headers.Authorization = `Bearer ${token}`;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const method = body === undefined ? "GET" : "POST";
  const signal = AbortSignal.timeout(PATIENCE);
  let response, text;
  try {
    response = await fetch(path, { method, headers, body, signal, cache: "no-store" });
    text = await response.text();
  } catch {
    throw new Refusal(0, {
      message: "The server did not answer. See that it is running, then try again.",
    });
  }
  const answer = parsed(text);
  if (response.ok && answer) return answer;
  throw refusal(response, answer);
}

function refusal({ status, headers }, answer) {
  const error = { ...answer?.error };
  error.message ||= `The server answered with HTTP status ${status}; its log may say why.`;
  const wait = headers.get("Retry-After");
  if (wait) error.message += ` (Try again in ${wait} s.)`;
  return new Refusal(status, error, answer?.model);
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}
