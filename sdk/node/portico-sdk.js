// Portico plug-in SDK for Node 18 or newer: one file, no dependency. The protocol is in docs/plugins.md.
//
//   const portico = new Plugin(SERVICE_CONFIG);
//   await portico.serve(http.createServer(portico.handler(async (req, res) => { … req.identity … })));
//
// `handler` takes any (req, res) function, so an Express application too. Environment: PORTICO_URL, PORTICO_TOKEN,
// PORT. Under `portico run`, which registers by itself, this file only verifies and drains. One process is one
// instance: do not put it below `cluster` (the registration and the memory against replays belong to the process).
import { AsyncLocalStorage } from "node:async_hooks";
import { createHash, createHmac, createPublicKey, timingSafeEqual, verify as verifySignature } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";

export const ORDER = ["user", "tenant", "session", "roles", "scopes", "aal", "request-id"];
const SIGNED = [...ORDER, "timestamp", "signature"];
const SAFE_METHODS = new Set(["GET", "HEAD", "OPTIONS", "TRACE"]);
const WINDOW_MS = 60_000;
const MAX_ANSWER = 16 * 1024 * 1024;
const requests = new AsyncLocalStorage();

/** The identity of the request that is being answered, or undefined. */
export const current = () => requests.getStore() ?? undefined;

/** RFC 9457 problem+json: throw it in a handler to answer it; `call` throws it when it is refused. */
export class Problem extends Error {
  constructor(status, code, detail = "", { errors = [], requestId } = {}) {
    super([`${status} ${code}: ${detail}`, ...errors.map((e) => `${e.field}: ${e.message}`)].join("; "));
    Object.assign(this, { name: "Problem", status, code, detail, errors, requestId });
  }

  send(res) {
    const doc = { type: "about:blank", title: this.code, status: this.status, code: this.code };
    if (this.detail) doc.detail = this.detail;
    if (this.errors.length) doc.errors = this.errors;
    const requestId = this.requestId ?? current()?.requestId;
    if (requestId) doc.request_id = requestId;
    sendJson(res, this.status, doc, "application/problem+json");
  }

  static read(status, text) {
    try {
      const { code, detail, errors, request_id: requestId } = JSON.parse(text);
      if (typeof code === "string") return new Problem(status, code, detail, { errors: Array.isArray(errors) ? errors : [], requestId });
    } catch {
      // Not every upstream speaks problem+json.
    }
    return new Problem(status, `http.${status}`, text.slice(0, 200));
  }
}

/** Not from the gateway, or not from just now; why is for the log, never for the caller. */
export class Refused extends Error {}

/** The text that is signed; target and values are header text as it is on the wire (latin-1). */
export function signatureBase(timestampMs, method, target, values) {
  return ["portico/headers/1", timestampMs, method, target, ...ORDER.map((name) => `${name}:${values[name]}`)].join("\n");
}

export function sign(secret, base) {
  return "v1=" + createHmac("sha256", secret).update(base, "latin1").digest("hex");
}

/**
 * Checks the identity headers. Remembers up to `memory` unsafe requests of the last minute; when that is too few, the
 * oldest second is forgotten and whatever was signed before its end is refused: bounded, and never replayable.
 */
export class Verifier {
  #memory;
  #seen = new Map();
  #count = 0;
  #floor = -1;

  constructor(secrets, { memory = 100_000 } = {}) {
    this.secrets = [secrets].flat().filter(Boolean);
    this.#memory = memory;
  }

  /** Makes `secret` the newest and keeps the one before it until the next rotation. */
  rotate(secret) {
    if (secret && secret !== this.secrets[0]) this.secrets = [secret, ...this.secrets.slice(0, 1)];
  }

  /** Number of remembered requests. */
  get size() {
    return this.#count;
  }

  /** The identity, or Refused. `target` is path and query as received, `headers` a flat list as `req.rawHeaders`. */
  verify(method, target, headers, nowMs = Date.now()) {
    const found = new Map();
    for (let i = 0; i < headers.length; i += 2) {
      const name = headers[i].toLowerCase();
      if (!name.startsWith("x-portico-")) continue;
      const short = name.slice("x-portico-".length);
      found.set(short, [...(found.get(short) ?? []), headers[i + 1].replace(/^[ \t]+|[ \t]+$/g, "")]);
    }
    const counts = SIGNED.map((name) => found.get(name)?.length ?? 0);
    if (counts.some((n) => n !== 1)) throw new Refused(Math.max(...counts) > 1 ? "duplicate" : "missing");
    const one = Object.fromEntries(SIGNED.map((name) => [name, found.get(name)[0]]));
    const given = one.signature.split(","); // Two while the secret rotates.
    const wellFormed = /^[0-9]{1,15}$/.test(one.timestamp) && /^[0-9]{0,2}$/.test(one.aal)
      && given.length <= 2 && given.every((mac) => /^v1=[0-9a-f]{64}$/.test(mac));
    if (!wellFormed) throw new Refused("malformed");
    const stamp = Number(one.timestamp);
    if (Math.abs(nowMs - stamp) > WINDOW_MS) throw new Refused("skew");
    const base = signatureBase(one.timestamp, method, target, one);
    const right = this.secrets.map((secret) => Buffer.from(sign(secret, base)));
    if (!right.some((mac) => given.some((text) => timingSafeEqual(mac, Buffer.from(text))))) throw new Refused("mismatch");
    if (!SAFE_METHODS.has(method)) this.#remember(Math.floor(stamp / 1000), base, nowMs);
    const left = found.get("deadline-ms")?.[0] ?? "";
    return Object.freeze({
      user: one.user || undefined,
      tenant: one.tenant || undefined,
      session: one.session || undefined,
      roles: one.roles.split(",").filter(Boolean),
      scopes: one.scopes.split(" ").filter(Boolean),
      aal: Number(one.aal),
      requestId: one["request-id"],
      deadline: /^[0-9]{1,9}$/.test(left) ? performance.now() + Number(left) : undefined,
    });
  }

  #remember(second, base, nowMs) {
    for (const [old, digests] of this.#seen) {
      if ((old + 1) * 1000 < nowMs - WINDOW_MS) this.#forget(old, digests);
    }
    const digest = createHash("sha256").update(base, "latin1").digest("base64");
    if (second <= this.#floor || this.#seen.get(second)?.has(digest)) throw new Refused("replay");
    if (this.#count >= this.#memory) {
      this.#floor = Math.min(...this.#seen.keys());
      this.#forget(this.#floor, this.#seen.get(this.#floor));
    }
    if (!this.#seen.has(second)) this.#seen.set(second, new Set());
    this.#seen.get(second).add(digest);
    this.#count += 1;
  }

  #forget(second, digests) {
    this.#count -= digests.size;
    this.#seen.delete(second);
  }
}

/** One instance of one service: registration, heartbeats, verification, calls, drain. */
export class Plugin {
  #token;
  #lingerMs;
  #drainMs;
  #log;
  #healthPath;
  #unsigned;
  #stop = new AbortController();
  #settled = Promise.resolve(); // Ends with the registration that is under way.
  #running;
  #inFlight = 0;
  #onIdle = () => {};
  #keys = new Map();
  #keysAt = -Infinity;

  constructor(config, { url, token, secret, lingerMs = 1000, drainMs = 30_000, log = defaultLog } = {}) {
    const env = process.env;
    this.name = env.PORTICO_SERVICE || config.name;
    this.config = { host: "127.0.0.1", heartbeat_s: 30, health_check_url: "/healthz", ...config, name: this.name };
    this.config.port = Number(env.PORT || config.port || 0);
    this.url = url ?? (env.PORTICO_URL || "http://127.0.0.1:8080");
    this.id = undefined;
    this.identity = {};
    this.internalUrl = undefined;
    this.verifier = new Verifier(secret ?? env.PORTICO_INSTANCE_SECRET);
    /** "new", "managed" (below `portico run`), "starting", the registry's state, "drained", "draining" */
    this.state = this.verifier.secrets.length ? "managed" : "new";
    this.#token = (token ?? env.PORTICO_TOKEN ?? "").trim().split(" ").at(-1);
    this.#healthPath = pathOf(this.config.health_check_url);
    this.#unsigned = new Set([this.#healthPath, config.openapi_url && pathOf(config.openapi_url)]);
    [this.#lingerMs, this.#drainMs, this.#log] = [lingerMs, drainMs, log];
  }

  /** Wraps a (req, res) function: what it sees is verified, `req.identity` and `current()` say who calls. */
  handler(app) {
    return async (req, res) => {
      const path = req.url.split("?", 1)[0];
      const safe = req.method === "GET" || req.method === "HEAD";
      if (safe && path === this.#healthPath) {
        const stopping = this.#stop.signal.aborted;
        return sendJson(res, stopping ? 503 : 200, { status: stopping ? "draining" : "ok" });
      }
      this.#inFlight += 1;
      res.once("close", () => {
        this.#inFlight -= 1;
        if (this.#inFlight === 0) this.#onIdle();
      });
      try {
        req.identity = safe && this.#unsigned.has(path) ? undefined : await this.identify(req);
      } catch (refused) {
        this.#log("warn", `refused ${req.method} ${path}: ${refused.message}`);
        return new Problem(401, `${this.name}.signature_invalid`, "this service answers its gateway only").send(res);
      }
      await requests.run(req.identity, async () => {
        try {
          await app(req, res);
        } catch (error) {
          this.#answerError(res, error);
        }
      });
    };
  }

  /** The identity of a request, e.g. of an `upgrade` event, or Refused. */
  async identify(req) {
    // The gateway may be faster than the registry's answer, which brings the secret.
    if (!this.verifier.secrets.length) await Promise.race([this.#settled, sleep(2000, undefined, { ref: false })]);
    return this.verifier.verify(req.method, req.url, req.rawHeaders);
  }

  #answerError(res, error) {
    if (!(error instanceof Problem)) {
      this.#log("error", error?.stack ?? String(error));
      error = new Problem(500, `${this.name}.internal`, "the service failed");
    }
    if (res.headersSent) res.destroy();
    else error.send(res);
  }

  /** Listens, registers, and ends the process with 0 after a drain on SIGTERM or SIGINT. Resolves when it listens. */
  async serve(server, bind = this.config.host === "auto" ? undefined : this.config.host) {
    await new Promise((resolve, reject) => {
      server.once("error", reject);
      server.listen(this.config.port, bind, resolve);
    });
    this.config.port = server.address().port;
    const stop = async () => {
      if (this.#stop.signal.aborted) process.exit(1); // The second signal means now.
      await this.drain(server);
      process.exit(0);
    };
    for (const name of ["SIGTERM", "SIGINT"]) process.on(name, stop);
    this.start();
  }

  /** Registers in the background, the port must listen already. Harmless to repeat. */
  start() {
    if (this.state !== "new") return;
    if (!this.#token) throw new Error("PORTICO_TOKEN is not set: make one with `portico plugin token`, or use `portico run`");
    this.state = "starting";
    this.#running = this.#run();
  }

  async #run() {
    const { signal } = this.#stop;
    let delay = 250;
    while (!signal.aborted) {
      try {
        let wait = await this.#register();
        delay = 250;
        while (wait && !signal.aborted) {
          await this.#pause(wait * 1000 * (0.9 + 0.1 * Math.random()));
          if (!signal.aborted) wait = await this.#heartbeat(wait);
        }
      } catch (error) {
        if (signal.aborted) return;
        this.#log("warn", `cannot register port ${this.config.port} at ${this.url}: ${why(error)}; next try in ${delay / 1000} s at most`);
        await this.#pause(delay * (0.5 + 0.5 * Math.random()));
        delay = Math.min(delay * 2, 30_000);
      }
    }
  }

  async #pause(ms) {
    await sleep(ms, undefined, { signal: this.#stop.signal }).catch(() => {});
  }

  /** Registers and returns the seconds until the first heartbeat. */
  async #register() {
    const { promise, resolve } = withResolvers();
    this.#settled = promise;
    try {
      let doc = await this.#enrol();
      if (!this.verifier.secrets.length) {
        // A process before us took the secret with it: only a new registration shows one again.
        await this.#registry(`deregister/${this.id}`, this.#token, { now: true, reason: "secret lost" });
        doc = await this.#enrol();
      }
      this.#log("info", `registered ${this.name} as ${this.id} at ${this.url}`);
      return Number(doc.heartbeat_s ?? this.config.heartbeat_s);
    } finally {
      resolve();
    }
  }

  async #enrol() {
    const doc = await this.#registry("register", this.#token, this.config);
    if (typeof doc?.id !== "string") throw new Error("the registry's answer has no id");
    this.id = doc.id;
    this.identity = doc.identity ?? {};
    this.internalUrl = doc.internal_url;
    this.verifier.rotate(doc.instance_secret);
    if (!this.#stop.signal.aborted) this.state = doc.state ?? "ready";
    return doc;
  }

  /** Seconds until the next one, or undefined to register again. */
  async #heartbeat(before) {
    let doc;
    try {
      doc = await this.#registry("heartbeat", this.#credential(), { service_id: this.id });
    } catch (error) {
      if (!(error instanceof Problem)) return Math.min(before, 5);
      if (error.status === 409) this.state = "drained"; // Only an operator brings it back.
      return error.status === 401 || error.status === 404 ? undefined : before;
    }
    this.state = doc.drain ? "draining" : "ready";
    this.verifier.rotate(doc.key_rotation?.instance_secret);
    if (doc.key_rotation === true) return undefined;
    return Math.min(Math.max(Number(doc.next_s) || before, 0.1), 300);
  }

  /** Deregisters, serves on while the news travels, and waits for what is in flight: false if that took too long. */
  async drain(server) {
    this.#stop.abort();
    this.state = "draining";
    await Promise.race([this.#running, sleep(5000, undefined, { ref: false })]);
    if (this.id) {
      await this.#registry(`deregister/${this.id}`, this.#credential(), { reason: "stopping" }, 5000)
        .catch((error) => this.#log("warn", `cannot deregister: ${why(error)}`));
    }
    await sleep(this.#lingerMs);
    server?.close();
    server?.closeIdleConnections();
    const idle = new Promise((resolve) => {
      this.#onIdle = () => resolve(true);
      if (this.#inFlight === 0) resolve(true);
    });
    return Promise.race([idle, sleep(this.#drainMs, false, { ref: false })]);
  }

  #credential() {
    return this.verifier.secrets[0] ?? this.#token;
  }

  /**
   * Calls a service through the gateway as this service, by the listener between services where the registration named
   * one. Returns {status, headers, body} with the body decoded when it
   * is JSON, else as a Buffer; a refusal throws Problem. Never outlives the deadline of the request being answered.
   */
  async call(service, path = "/", { method = "GET", body, headers = {}, timeoutMs = 30_000 } = {}) {
    const deadline = current()?.deadline;
    const left = Math.floor(deadline === undefined ? timeoutMs : Math.min(timeoutMs, deadline - performance.now()));
    if (left < 1) throw new Problem(504, `${this.name}.deadline_exceeded`, "no time was left for this call");
    const url = new URL(`/api/${encodeURIComponent(service).replace("%40", "@")}/${path.replace(/^\/+/, "")}`, this.internalUrl ?? this.url);
    return this.#send(method, url, this.#credential(), body, left, { ...headers, "X-Portico-Deadline-Ms": String(left) });
  }

  async #registry(path, credential, body, timeoutMs = 10_000) {
    return (await this.#send("POST", new URL(`/api/registry/${path}`, this.url), credential, body, timeoutMs)).body;
  }

  async #send(method, url, credential, body, timeoutMs, headers = {}) {
    const answer = await fetch(url, {
      method,
      redirect: "manual", // A credential must not follow a redirect to another host.
      signal: AbortSignal.timeout(timeoutMs),
      headers: {
        "X-Portico-Protocol": "1",
        ...(body === undefined ? {} : { "Content-Type": "application/json" }),
        ...(credential ? { Authorization: `Bearer ${credential}` } : {}),
        ...headers,
      },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
    const parts = [];
    let size = 0;
    for await (const part of answer.body ?? []) {
      size += part.length;
      if (size > MAX_ANSWER) throw new Problem(502, `${this.name}.answer_too_large`, `more than ${MAX_ANSWER} bytes`);
      parts.push(part);
    }
    const raw = Buffer.concat(parts);
    if (answer.status < 200 || answer.status >= 300) throw Problem.read(answer.status, raw.toString());
    const json = /json/.test(answer.headers.get("content-type") ?? "");
    return { status: answer.status, headers: answer.headers, body: json ? JSON.parse(raw) : raw };
  }

  /** Claims of X-Portico-Identity (EdDSA, RFC 8037) checked with the gateway's JWKS, or Refused. */
  async verifyStatement(jwt, { typ = "pi+jwt", audience = this.name } = {}) {
    try {
      const [head, claims, mac, ...rest] = jwt.length > 8192 ? [] : jwt.split(".");
      if (mac === undefined || rest.length) throw new Error("not three parts");
      const [header, doc] = [JSON.parse(unbase64(head)), JSON.parse(unbase64(claims))];
      if (header.alg !== "EdDSA" || header.typ !== typ) throw new Error("wrong kind");
      for (const name of ["crit", "b64", "jku", "jwk", "x5u", "x5c"]) if (name in header) throw new Error(`header ${name}`);
      const key = await this.#key(header.kid);
      if (!verifySignature(null, Buffer.from(`${head}.${claims}`), key, unbase64(mac))) throw new Error("signature");
      const now = Date.now() / 1000;
      if (doc.iss !== this.identity.issuer || ![doc.aud].flat().includes(audience)) throw new Error("issuer or audience");
      const times = [doc.exp, doc.nbf ?? 0, doc.iat ?? 0];
      if (!times.every(Number.isFinite)) throw new Error("no time");
      if (doc.exp <= now || Math.max(times[1], times[2]) > now + 60) throw new Error("time");
      return doc;
    } catch (error) {
      throw new Refused(`statement: ${why(error)}`);
    }
  }

  async #key(kid) {
    if (!this.#keys.has(kid) && performance.now() - this.#keysAt > 30_000) {
      this.#keysAt = performance.now();
      const { body } = await this.#send("GET", new URL(this.identity.jwks_url), undefined, undefined, 5000);
      const usable = body.keys.filter((jwk) => jwk.kty === "OKP" && jwk.crv === "Ed25519" && jwk.kid);
      this.#keys = new Map(usable.map((jwk) => [jwk.kid, createPublicKey({ key: jwk, format: "jwk" })]));
    }
    if (!this.#keys.has(kid)) throw new Error("unknown key");
    return this.#keys.get(kid);
  }
}

/** Answers JSON with its length. */
export function sendJson(res, status, doc, type = "application/json") {
  const body = Buffer.from(JSON.stringify(doc));
  res.writeHead(status, { "Content-Type": type, "Content-Length": body.length });
  res.end(res.req.method === "HEAD" ? undefined : body);
}

function unbase64(text) {
  const raw = Buffer.from(text, "base64url");
  if (raw.toString("base64url") !== text) throw new Error("base64url");
  return raw;
}

function pathOf(url) {
  return new URL(url, "http://instance").pathname;
}

function why(error) {
  return error.cause?.message || error.cause?.code || error.message;
}

function withResolvers() {
  let resolve;
  const promise = new Promise((done) => (resolve = done));
  return { promise, resolve };
}

function defaultLog(level, text) {
  process.stderr.write(`${new Date().toISOString()} ${level.toUpperCase()} ${text}\n`);
}
