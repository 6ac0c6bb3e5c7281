// A registry that records what a plug-in says to it, and a gateway that signs requests to the plug-in.
import { spawn } from "node:child_process";
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import http from "node:http";
import { fileURLToPath } from "node:url";
import { ORDER, sign, signatureBase } from "../portico-sdk.js";

export const ROOT = fileURLToPath(new URL("../../../", import.meta.url));
const PATIENCE_MS = 20_000;

export class FakeGateway {
  #calls = [];
  #wake = () => {};

  /** `script` maps a verb ("register", …, "other") to answers [status, document] that are given once each, in order. */
  static async start(script = {}, heartbeatS = 30) {
    const gateway = new FakeGateway();
    Object.assign(gateway, { script, heartbeatS });
    gateway.server = http.createServer((req, res) => gateway.#answer(req, res)).listen(0, "127.0.0.1");
    await once(gateway.server, "listening");
    gateway.url = `http://127.0.0.1:${gateway.server.address().port}`;
    return gateway;
  }

  stop() {
    this.server.close();
    this.server.closeAllConnections();
  }

  async #answer(req, res) {
    let text = "";
    for await (const part of req) text += part;
    const verb = req.url.startsWith("/api/registry/") ? req.url.split("/")[3] : "other";
    const [status, { headers = {}, ...doc }] = this.script[verb]?.shift() ?? this.#usual(verb);
    if (status === "hang up") return req.socket.destroy();
    this.#calls.push({ verb, path: req.url, headers: req.headers, body: text ? JSON.parse(text) : undefined });
    this.#wake();
    res.writeHead(status, { "Content-Type": "application/json", ...headers }).end(JSON.stringify(doc));
  }

  #usual(verb) {
    const identity = { jwks_url: `${this.url}/.well-known/jwks.json`, issuer: "urn:portico:test" };
    const registered = { id: "i-1", state: "ready", heartbeat_s: this.heartbeatS, instance_secret: "pis_first", identity, directory_seq: 7 };
    return {
      register: [201, registered],
      heartbeat: [200, { next_s: this.heartbeatS, drain: false, directory_seq: 7 }],
      deregister: [200, { state: "draining" }],
    }[verb] ?? [404, { status: 404, code: "gateway.service_not_found" }];
  }

  get waiting() {
    return this.#calls.length;
  }

  /** The next call, which must be of this kind; those of kind `skip` before it are passed over. */
  async next(verb, { skip } = {}) {
    for (;;) {
      const call = this.#calls.shift() ?? (await this.#wait(verb));
      if (call?.verb === verb) return call;
      if (call && call.verb !== skip) throw new Error(`expected ${verb}, got ${JSON.stringify(call)}`);
    }
  }

  #wait(verb) {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error(`no ${verb} came`)), PATIENCE_MS);
      this.#wake = () => resolve(clearTimeout(timer));
    });
  }
}

/** The headers that the gateway sets, as a flat list. */
export function signed(method, target, secret, who = {}, nowMs = Date.now()) {
  const values = Object.fromEntries(ORDER.map((name) => [name, who[name] ?? ""]));
  values["request-id"] ||= randomUUID();
  const list = ORDER.flatMap((name) => [`X-Portico-${name}`, values[name]]);
  const mac = sign(secret, signatureBase(nowMs, method, target, values));
  return [...list, "X-Portico-Timestamp", String(nowMs), "X-Portico-Signature", mac];
}

/** One request with exactly these headers: {status, headers, body}. */
export async function send(port, method, target, headers = [], body) {
  const raw = body === undefined ? undefined : JSON.stringify(body);
  const length = raw === undefined ? [] : ["Content-Length", String(Buffer.byteLength(raw))];
  const req = http.request({ host: "127.0.0.1", port, method, path: target, agent: false, headers: ["Host", "x", ...headers, ...length] });
  req.end(raw);
  const [res] = await once(req, "response");
  let text = "";
  for await (const part of res) text += part;
  return { status: res.statusCode, headers: res.headers, body: text ? JSON.parse(text) : undefined };
}

/** The notes example as a real process. */
export function startNotes(gateway) {
  const clean = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith("PORTICO_") && name !== "PORT"));
  const child = spawn(process.execPath, ["examples/node/notes.js"], {
    cwd: ROOT,
    env: { ...clean, PORTICO_URL: gateway.url, PORTICO_TOKEN: "prt_test" },
    stdio: process.env.NOTES_VERBOSE ? "inherit" : "ignore",
  });
  const exit = once(child, "exit").then(([code, signal]) => code ?? signal);
  return { terminate: () => child.kill("SIGTERM"), exit, kill: () => child.kill("SIGKILL") };
}
