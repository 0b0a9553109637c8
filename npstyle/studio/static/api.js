// Requests to the server. What it refuses is thrown as a Refusal, with the field that is wrong.

export class Refusal extends Error {
  constructor(values) {
    const { found, expected, cure } = values;
    super(found === undefined ? values.message : `Found ${found}; expected ${expected}; ${cure}.`);
    this.field = values.field ?? "";
    this.cure = cure ?? "";
  }
}

async function request(method, path, body) {
  let response;
  try {
    response = await fetch(path, { method, body });
  } catch {
    throw new Refusal({ message: "The studio does not answer. Is npstyle studio still running?" });
  }
  if (response.ok) return response;
  let values = { message: `The studio has refused this (${response.status}). Open the address again that it has printed.` };
  if (response.headers.get("content-type")?.includes("json")) values = await response.json();
  throw new Refusal(values);
}

export async function get(path) {
  return (await request("GET", path)).json();
}

export async function post(path, values) {
  const response = await request("POST", path, values === undefined ? undefined : JSON.stringify(values));
  return response.status === 204 ? null : response.json();
}

export async function remove(path) {
  await request("DELETE", path);
}

export async function upload(file) {
  return (await request("POST", `/api/pictures?name=${encodeURIComponent(file.name)}`, file)).json();
}

export async function losses(id) {
  const text = await (await request("GET", `/api/jobs/${id}/losses`)).text();
  return text.split("\n").flatMap((line) => {
    try {
      return [JSON.parse(line)];
    } catch {
      return []; // empty, or still being written
    }
  });
}
