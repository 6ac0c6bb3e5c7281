// Notes: a complete Portico plug-in in Node without dependencies. Notes live in memory, each tenant sees its own.
//
//   PORTICO_URL=http://127.0.0.1:8080 PORTICO_TOKEN=prt_… node notes.js
//   portico run --name notes -- node notes.js
import { randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";
import http from "node:http";
import { Plugin, Problem, sendJson } from "../../sdk/node/portico-sdk.js"; // or copy it next to your program

const WRITE = ["notes:note:write"];
const SERVICE_CONFIG = {
  name: "notes",
  display_name: "Notes",
  version: "1.0.0",
  host: "127.0.0.1",
  base_path: "/",
  tags: ["example", "node"],
  metadata: { language: "node" },
  health_check_url: "/healthz",
  openapi_url: "/openapi.json",
  permissions: WRITE,
  endpoints: [
    { method: "GET", path: "/notes", description: "List the notes of my tenant" },
    { method: "POST", path: "/notes", description: "Write a note", required_permissions: WRITE },
    { method: "GET", path: "/notes/{id}", description: "Read a note" },
    { method: "DELETE", path: "/notes/{id}", description: "Delete a note", required_permissions: WRITE },
  ],
};
const OPENAPI = JSON.parse(readFileSync(new URL("../notes.openapi.json", import.meta.url), "utf8"));
const MAX_NOTES = 1000; // for each tenant
const MAX_TENANTS = 1000;
const MAX_BODY = 64 * 1024;
const LENGTHS = { title: 200, text: 10_000 };

const notes = new Map(); // tenant -> id -> note; nothing reads it without naming a tenant

async function answer(req, res) {
  const url = new URL(req.url, "http://instance");
  if (req.method === "GET" && url.pathname === "/openapi.json") return sendJson(res, 200, OPENAPI);
  // The tenant is what the gateway signed; whatever the client wrote has been removed there.
  const tenant = req.identity.tenant;
  if (!tenant) throw new Problem(403, "notes.tenant_required", "notes belong to a tenant; log in");
  const mine = notes.get(tenant) ?? new Map();
  if (url.pathname === "/notes") {
    if (req.method === "GET") return sendJson(res, 200, list(mine, url.searchParams));
    if (req.method === "POST") return sendJson(res, 201, write(tenant, req.identity, await read(req)));
    throw new Problem(405, "notes.method_not_allowed", `${req.method} is not offered`);
  }
  // A foreign tenant's note is answered like one that never was.
  const note = mine.get(/^\/notes\/([^/]+)$/.exec(url.pathname)?.[1]);
  if (!note) throw new Problem(404, "notes.not_found", "there is no such note");
  if (req.method === "GET") return sendJson(res, 200, note);
  if (req.method !== "DELETE") throw new Problem(405, "notes.method_not_allowed", `${req.method} is not offered`);
  mine.delete(note.id);
  if (!mine.size) notes.delete(tenant);
  res.writeHead(204).end();
}

function list(mine, query) {
  const errors = [...new Set(query.keys())].filter((name) => name !== "limit" && name !== "cursor")
    .map((name) => fault(name, "unknown", "is not a parameter"));
  const limit = /^[0-9]{1,3}$/.test(query.get("limit") ?? "50") ? Number(query.get("limit") ?? "50") : 0;
  if (limit < 1 || limit > 200) errors.push(fault("limit", "range", "must be 1 to 200"));
  const cursor = query.get("cursor");
  if (cursor !== null && !mine.has(cursor)) errors.push(fault("cursor", "unknown", "is none of your notes"));
  if (errors.length) throw new Problem(400, "notes.invalid", "the query has faults", { errors });
  const all = [...mine.values()];
  const first = cursor === null ? 0 : all.findIndex((note) => note.id === cursor) + 1;
  const items = all.slice(first, first + limit);
  return { items, next_cursor: first + limit < all.length ? items.at(-1).id : null };
}

function write(tenant, { user }, { title, text }) {
  const mine = notes.get(tenant) ?? new Map();
  if (mine.size >= MAX_NOTES || (!mine.size && notes.size >= MAX_TENANTS)) {
    throw new Problem(507, "notes.full", `a tenant has at most ${MAX_NOTES} notes`);
  }
  const note = { id: randomUUID(), title, text, author: user ?? null, created_at: new Date().toISOString() };
  notes.set(tenant, mine.set(note.id, note));
  return note;
}

/** The title and text of the body, or a Problem that names every fault. */
async function read(req) {
  const parts = [];
  let size = 0;
  for await (const part of req) {
    size += part.length;
    if (size <= MAX_BODY) parts.push(part); // The rest is read and dropped, so that the answer arrives.
  }
  if (size > MAX_BODY) throw new Problem(413, "notes.too_large", `a body has at most ${MAX_BODY} bytes`);
  let body;
  try {
    body = JSON.parse(Buffer.concat(parts).toString());
  } catch {
    body = undefined;
  }
  if (typeof body !== "object" || body === null || Array.isArray(body)) {
    throw new Problem(400, "notes.invalid", "the body must be a JSON object");
  }
  const errors = Object.keys(body).filter((name) => !Object.hasOwn(LENGTHS, name)).map((name) => fault(name, "unknown", "is not a field"));
  for (const [name, most] of Object.entries(LENGTHS)) {
    if (typeof body[name] !== "string" || !body[name].trim()) errors.push(fault(name, "required", "must be text"));
    else if ([...body[name]].length > most) errors.push(fault(name, "too_long", `has at most ${most} characters`));
  }
  if (errors.length) throw new Problem(400, "notes.invalid", "the note has faults", { errors });
  return body;
}

function fault(field, code, message) {
  return { field, code, message };
}

const portico = new Plugin(SERVICE_CONFIG);
await portico.serve(http.createServer(portico.handler(answer)));
