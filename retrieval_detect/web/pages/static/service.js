// Asking the service: one function a route. A full queue is waited for, everything else that fails is a Refused.
const PATIENCE = 60;
let token = "";

export class Refused extends Error {
  constructor(status, { error, message, hint } = {}) {
    super(message || `the server answered ${status}`);
    this.status = status;
    this.code = error || "";
    this.hint = hint || "";
  }
}

export function setToken(value) {
  token = value.trim();
}

async function call(path, options = {}) {
  const headers = { ...options.headers };
  if (token) headers.Authorization = `Bearer ${token}`;
  const answer = await fetch(path, { ...options, headers });
  const body = await answer.json().catch(() => ({}));
  return { status: answer.status, body, retryAfter: Number(answer.headers.get("Retry-After")) || 1 };
}

async function wanted(path, options) {
  const { status, body } = await call(path, options);
  if (status >= 400) throw new Refused(status, body);
  return body;
}

const form = (files, beside = []) => {
  const made = new FormData();
  for (const file of files) made.append("images", file, file.name || "pasted image");
  for (const file of beside) made.append("beside", file, file.name);
  return made;
};

// The body of an answer about images; `evidence` : "html" for each, "report" for a page of all. `beside` :
// photographs to lay beside the one image.
async function asked(files, parameters, evidence, { beside = [], givenUp = () => false } = {}) {
  const path = `v1/query?${new URLSearchParams({ ...parameters, evidence })}`;
  for (let attempt = 0; ; attempt += 1) {
    const { status, body, retryAfter } = await call(path, { method: "POST", body: form(files, beside) });
    if (body.results) return body;
    if (status !== 429 || attempt >= PATIENCE || givenUp()) throw new Refused(status, body);
    await new Promise((done) => setTimeout(done, 1000 * retryAfter));
  }
}

export async function ask(file, parameters, more) {
  const { results, evidence } = await asked([file], parameters, "html", more);
  return [results[0], evidence ? evidence[0] : null];
}

export async function report(files, parameters, more) {
  const body = await asked(files, parameters, "report", more);
  if (!body.report) throw new Refused(422, body.results[0]);
  return body.report;
}

export async function thumbnail(row, side) {
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  const answer = await fetch(`v1/references/${row}/thumbnail?side=${side}`, { headers });
  return answer.ok ? answer.blob() : null;
}

export const tokenIsRight = () => wanted("v1/token");

export const generation = async () => (await call("healthz")).body.generation;

export const banks = () => wanted("v1/banks");

export const bankMap = () => wanted("v1/banks/map");

export const plan = (files, facts) =>
  wanted(`v1/banks/references?${new URLSearchParams(facts)}`, { method: "POST", body: form(files) });

export const confirm = (id) => wanted(`v1/banks/references/${encodeURIComponent(id)}`, { method: "POST" });

export const rollback = (generation) =>
  wanted("v1/banks/rollback", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ generation }),
  });
