// The Node SDK: golden signatures, replays, requests, calls, statements, and the protocol with a real child process.
import assert from "node:assert/strict";
import { generateKeyPairSync, sign as signBytes } from "node:crypto";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import http from "node:http";
import { test } from "node:test";
import { ORDER, Plugin, Problem, Refused, Verifier, current, sendJson, sign, signatureBase } from "../portico-sdk.js";
import { FakeGateway, send, signed, startNotes } from "./fake-gateway.js";

const GOLDEN = JSON.parse(readFileSync(new URL("../../golden/signature.json", import.meta.url), "utf8"));
const CONFIG = { name: "hello", version: "1", openapi_url: "/openapi.json" };
const ALICE = { user: "alice", tenant: "acme", roles: "admin,user", scopes: "a:b:c d:e:f", aal: "2", "request-id": "req-1234" };
const quiet = { log: () => {} };

test("golden base, signature and identity", () => {
  assert.deepEqual(ORDER, GOLDEN.order);
  for (const { name, secret, timestamp_ms: at, method, target, values, base, signature, identity } of GOLDEN.cases) {
    assert.equal(signatureBase(at, method, target, values), base, name);
    assert.equal(sign(secret, base), signature, name);
    const headers = [...ORDER.flatMap((n) => [`X-Portico-${n}`, values[n]]), "X-Portico-Timestamp", String(at), "X-Portico-Signature", signature];
    assert.deepEqual({ ...new Verifier(secret).verify(method, target, headers, at) }, {
      user: identity.user || undefined,
      tenant: identity.tenant || undefined,
      session: identity.session || undefined,
      roles: [...identity.roles].sort(),
      scopes: [...identity.scopes].sort(),
      aal: Number(identity.aal),
      requestId: identity.request_id,
      deadline: undefined,
    }, name);
  }
});

function outcome(verifier, method, target, headers, nowMs) {
  try {
    verifier.verify(method, target, headers, nowMs);
    return "ok";
  } catch (error) {
    assert(error instanceof Refused, error.stack);
    return error.message;
  }
}

test("golden conversations", () => {
  for (const { name, secrets, requests } of GOLDEN.verify) {
    const verifier = new Verifier(secrets);
    for (const { method, target, headers, now_ms: now, expect } of requests) {
      assert.equal(outcome(verifier, method, target, headers.flat(), now), expect, name);
    }
  }
});

test("the memory is bounded and never lets a replay through", () => {
  const verifier = new Verifier("pis_x", { memory: 3 });
  const posts = Array.from({ length: 10 }, (_, n) => signed("POST", "/", "pis_x", {}, 100_000 + 1000 * n));
  for (const headers of posts) {
    assert.equal(outcome(verifier, "POST", "/", headers, 110_000), "ok");
    assert(verifier.size <= 3);
  }
  for (const headers of posts) assert.equal(outcome(verifier, "POST", "/", headers, 110_000), "replay");
  const late = signed("POST", "/", "pis_x", {}, 170_000);
  assert.equal(outcome(verifier, "POST", "/", late, 171_000), "ok");
  assert.equal(verifier.size, 1);
  assert.equal(outcome(verifier, "POST", "/", late, 171_000), "replay");
});

test("a verifier without a secret lets nothing through", () => {
  assert.equal(outcome(new Verifier([undefined, ""]), "GET", "/", signed("GET", "/", "")), "mismatch");
});

async function listen(t, app, options = {}) {
  const plugin = new Plugin(CONFIG, { secret: "pis_x", ...quiet, ...options });
  const server = http.createServer(plugin.handler(app)).listen(0, "127.0.0.1");
  await once(server, "listening");
  t.after(() => server.close() && server.closeAllConnections());
  return { plugin, server, port: server.address().port };
}

test("requests are verified and identified, errors are problems", async (t) => {
  const { port } = await listen(t, async (req, res) => {
    if (req.url === "/teapot") throw new Problem(418, "hello.teapot", "short and stout");
    if (req.url === "/crash") throw new Error("secret detail");
    sendJson(res, 200, { tenant: current()?.tenant, same: current() === req.identity });
  });
  const through = (method, target, body) => send(port, method, target, signed(method, target, "pis_x", ALICE), body);
  assert.deepEqual((await through("GET", "/caf%C3%A9?q=1")).body, { tenant: "acme", same: true });
  assert.equal((await send(port, "GET", "/x")).status, 401);
  assert.equal((await send(port, "GET", "/x")).body.code, "hello.signature_invalid");
  const doubled = [...signed("GET", "/x", "pis_x", ALICE), "X-Portico-Tenant", "other"];
  assert.equal((await send(port, "GET", "/x", doubled)).status, 401);
  assert.equal((await send(port, "POST", "/x", [], { big: "x".repeat(500_000) })).status, 401);
  assert.deepEqual((await send(port, "GET", "/openapi.json")).body, { same: true });
  assert.equal((await send(port, "POST", "/openapi.json")).status, 401);
  assert.deepEqual((await send(port, "GET", "/healthz")).body, { status: "ok" });
  const teapot = await through("GET", "/teapot");
  assert.equal(teapot.headers["content-type"], "application/problem+json");
  assert.deepEqual(teapot.body, { type: "about:blank", title: "hello.teapot", status: 418, code: "hello.teapot", detail: "short and stout", request_id: "req-1234" });
  const crash = await through("GET", "/crash");
  assert.equal(crash.body.code, "hello.internal");
  assert(!JSON.stringify(crash.body).includes("secret detail"));
});

test("drain waits for what is in flight, but not for ever", async (t) => {
  let release;
  const { plugin, port, server } = await listen(t, async (req, res) => {
    await new Promise((resolve) => (release = resolve));
    sendJson(res, 200, {});
  }, { lingerMs: 0, drainMs: 20_000 });
  const entered = once(server, "request");
  const slow = send(port, "GET", "/slow", signed("GET", "/slow", "pis_x"));
  await entered;
  const drained = plugin.drain(server);
  while (!release) await new Promise(setImmediate);
  release();
  assert.equal((await slow).status, 200);
  assert.equal(await drained, true);

  const never = (req, res) => new Promise(() => t.after(() => res.destroy()));
  const stuck = await listen(t, never, { lingerMs: 0, drainMs: 10 });
  const arrived = once(stuck.server, "request");
  send(stuck.port, "GET", "/", signed("GET", "/", "pis_x")).catch(() => {});
  await arrived;
  assert.equal(await stuck.plugin.drain(stuck.server), false);
});

test("calls go by the listener between services where there is one", async (t) => {
  const inner = await FakeGateway.start({ other: [[200, { by: "internal" }]] });
  const doc = { id: "i-1", state: "ready", heartbeat_s: 30, instance_secret: "pis_first", internal_url: inner.url };
  const gateway = await FakeGateway.start({ register: [[201, doc]] });
  t.after(() => Promise.all([inner.stop(), gateway.stop()]));
  const plugin = new Plugin(CONFIG, { url: gateway.url, token: "prt_test", lingerMs: 0, ...quiet });
  plugin.start();
  await gateway.next("register");
  while (!plugin.id) await new Promise(setImmediate);
  assert.deepEqual((await plugin.call("clock", "/now")).body, { by: "internal" });
  const sent = await inner.next("other");
  assert.deepEqual([sent.path, sent.headers.authorization], ["/api/clock/now", "Bearer pis_first"]);
  await plugin.drain();
});

test("calls carry credential and deadline, refusals are problems, redirects are not followed", async (t) => {
  const refusal = { status: 403, code: "gateway.caller_not_allowed", detail: "no", request_id: "r", errors: [{ field: "a", code: "b", message: "c" }] };
  const gateway = await FakeGateway.start({
    other: [[200, { now: 1 }], [403, refusal], [307, { headers: { Location: "http://127.0.0.1:9/steal" } }], [200, { inner: true }]],
  });
  t.after(() => gateway.stop());
  const plugin = new Plugin(CONFIG, { url: gateway.url, secret: "pis_x", ...quiet });
  const answer = await plugin.call("clock@2", "/now?zone=utc", { timeoutMs: 5000 });
  assert.deepEqual([answer.status, answer.body], [200, { now: 1 }]);
  const sent = await gateway.next("other");
  assert.equal(sent.path, "/api/clock@2/now?zone=utc");
  assert.equal(sent.headers.authorization, "Bearer pis_x");
  assert.equal(sent.headers["x-portico-deadline-ms"], "5000");
  await assert.rejects(plugin.call("clock", "", { method: "POST", body: { a: 1 } }), (error) => {
    assert(error instanceof Problem);
    assert.deepEqual([error.status, error.code, error.detail, error.requestId, error.errors], [403, refusal.code, "no", "r", refusal.errors]);
    return true;
  });
  assert.deepEqual((await gateway.next("other")).body, { a: 1 });
  await assert.rejects(plugin.call("clock"), { status: 307 });
  await gateway.next("other");

  const outer = await listen(t, async (req, res) => sendJson(res, 200, (await plugin.call("clock")).body));
  const headers = signed("GET", "/", "pis_x");
  assert.deepEqual((await send(outer.port, "GET", "/", [...headers, "X-Portico-Deadline-Ms", "1500"])).body, { inner: true });
  assert(Number((await gateway.next("other")).headers["x-portico-deadline-ms"]) <= 1500);
  const late = await send(outer.port, "GET", "/", [...headers, "X-Portico-Deadline-Ms", "0"]);
  assert.deepEqual([late.status, late.body.code], [504, "hello.deadline_exceeded"]);
});

test("without a credential it says so; the operator's file can be the token", async (t) => {
  assert.throws(() => new Plugin(CONFIG, { token: "", secret: "" }).start(), /PORTICO_TOKEN/);
  const gateway = await FakeGateway.start();
  t.after(() => gateway.stop());
  const plugin = new Plugin(CONFIG, { url: gateway.url, token: "Authorization: Bearer pop_1\n", secret: "", lingerMs: 0, ...quiet });
  plugin.start();
  assert.equal((await gateway.next("register")).headers.authorization, "Bearer pop_1");
  await plugin.drain();
});

test("statements are checked with the gateway's keys", async (t) => {
  const { privateKey, publicKey } = generateKeyPairSync("ed25519");
  const jwk = { ...publicKey.export({ format: "jwk" }), kid: "k1" };
  const gateway = await FakeGateway.start({ other: [[200, { keys: [jwk, { kty: "RSA", kid: "k9" }] }]] });
  t.after(() => gateway.stop());
  const plugin = new Plugin(CONFIG, { url: gateway.url, secret: "pis_x", ...quiet });
  plugin.identity = { jwks_url: `${gateway.url}/.well-known/jwks.json`, issuer: "urn:portico:test" };
  const now = Math.floor(Date.now() / 1000);
  const jwt = (header = {}, claims = {}) => {
    const parts = [
      { alg: "EdDSA", typ: "pi+jwt", kid: "k1", ...header },
      { iss: "urn:portico:test", aud: ["hello"], sub: "alice", iat: now, exp: now + 60, ...claims },
    ];
    const text = parts.map((part) => Buffer.from(JSON.stringify(part)).toString("base64url")).join(".");
    return `${text}.${signBytes(null, Buffer.from(text), privateKey).toString("base64url")}`;
  };
  assert.equal((await plugin.verifyStatement(jwt())).sub, "alice");
  assert.equal((await plugin.verifyStatement(jwt({}, { aud: "hello" }))).sub, "alice");
  const good = jwt();
  for (const bad of [
    jwt({ alg: "none" }), jwt({ alg: "HS256" }), jwt({ typ: "at+jwt" }), jwt({ kid: "k2" }), jwt({ kid: 7 }), jwt({ crit: [] }), jwt({ jwk: {} }),
    jwt({}, { aud: "other" }), jwt({}, { iss: "urn:portico:test2" }), jwt({}, { exp: now }), jwt({}, { exp: "never" }), jwt({}, { exp: undefined }),
    jwt({}, { nbf: now + 120 }), jwt({}, { iat: now + 120 }), good.slice(0, -4), `${good}.x`, `${good}=`, "", "a.b.c", "x".repeat(9000),
  ]) {
    await assert.rejects(plugin.verifyStatement(bad), Refused, bad.slice(0, 60));
  }
  assert.equal(gateway.waiting, 1, "keys are fetched once, not for each unknown kid");
});

async function behind(t, script, heartbeatS) {
  const gateway = await FakeGateway.start(script, heartbeatS);
  const notes = startNotes(gateway);
  t.after(() => {
    notes.kill();
    gateway.stop();
  });
  return { gateway, notes };
}

test("a process registers, heartbeats, registers again when forgotten, and drains on SIGTERM", async (t) => {
  const script = { register: [["hang up", {}], [503, { code: "system.draining" }]], heartbeat: [[404, { code: "registry.unknown_instance" }]] };
  const { gateway, notes } = await behind(t, script, 0.2);
  await gateway.next("register"); // The one that is refused; the one before was cut.
  const first = await gateway.next("register");
  assert.equal(first.path, "/api/registry/register");
  assert.equal(first.headers["x-portico-protocol"], "1");
  assert.equal(first.headers.authorization, "Bearer prt_test");
  assert.deepEqual([first.body.name, first.body.version, first.body.host], ["notes", "1.0.0", "127.0.0.1"]);
  assert(first.body.port > 0);
  const beat = await gateway.next("heartbeat");
  assert.deepEqual([beat.body.service_id, beat.headers.authorization], ["i-1", "Bearer pis_first"]);
  assert.deepEqual((await gateway.next("register")).body, first.body);
  await gateway.next("heartbeat");
  const answer = await send(first.body.port, "GET", "/notes", signed("GET", "/notes", "pis_first", ALICE));
  assert.deepEqual([answer.status, answer.body], [200, { items: [], next_cursor: null }]);
  notes.terminate();
  const last = await gateway.next("deregister", { skip: "heartbeat" });
  assert.deepEqual([last.path, last.headers.authorization], ["/api/registry/deregister/i-1", "Bearer pis_first"]);
  assert.equal(await notes.exit, 0);
});

test("the first request may come before the registry's answer", async (t) => {
  const { gateway } = await behind(t, { register: [[201, { id: "i-1", state: "ready", heartbeat_s: 30, instance_secret: "pis_first" }]] });
  const { port } = (await gateway.next("register")).body;
  assert.equal((await send(port, "GET", "/notes", signed("GET", "/notes", "pis_first", ALICE))).status, 200);
});
