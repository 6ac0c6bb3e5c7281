"""The notes examples in every language behind the real gateway: PORTICO_BIN (default target/debug/portico)."""
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from pathlib import Path

from fake_gateway import PATIENCE_S, ROOT, Child, send

PORTICO = os.environ.get("PORTICO_BIN") or str(ROOT / "target" / "debug" / "portico")
EXAMPLES = {
    "python": [sys.executable, "examples/python/notes.py"],
    "node": ["node", "examples/node/notes.js"],
    "rust": [os.environ.get("NOTES_RUST") or str(ROOT / "target" / "debug" / "notes")],
}
NOTE = {"title": "milk", "text": "buy some"}
TENANTS = {"acme": "01939b5c-0000-7000-8000-00000000aaaa", "globex": "01939b5c-0000-7000-8000-00000000bbbb"}
# Python's standard library cannot sign with Ed25519, and Node is here anyway.
ISSUE = """
const { generateKeyPairSync, sign } = require("node:crypto");
const { privateKey, publicKey } = generateKeyPairSync("ed25519");
const jwks = { keys: [{ ...publicKey.export({ format: "jwk" }), kid: "k1", alg: "EdDSA", use: "sig" }] };
const now = Math.floor(Date.now() / 1000);
const tokens = JSON.parse(process.argv[1]).map((claims) => {
  const parts = [{ alg: "EdDSA", typ: "at+jwt", kid: "k1" }, { iss: "https://issuer.test", aud: "portico", iat: now, exp: now + 3600, ...claims }];
  const text = parts.map((part) => Buffer.from(JSON.stringify(part)).toString("base64url")).join(".");
  return `${text}.${sign(null, Buffer.from(text), privateKey).toString("base64url")}`;
});
console.log(JSON.stringify({ jwks, tokens }));
"""


class Door:
    """The real process on free ports, with a data directory of its own."""

    def __init__(self):
        self.folder = tempfile.TemporaryDirectory()
        people = [{"sub": name, "tid": TENANTS[tenant], "roles": ["member"], "scope": "notes:note:write" if writes else ""}
                  for name, tenant, writes in (("alice", "acme", True), ("bob", "globex", True), ("carol", "acme", False))]
        made = json.loads(subprocess.check_output(["node", "-e", ISSUE, json.dumps(people)]))
        self.alice, self.bob, self.carol = [[("Authorization", f"Bearer {token}")] for token in made["tokens"]]
        (Path(self.folder.name) / "jwks.json").write_text(json.dumps(made["jwks"]))
        self.port = 0
        self.start()
        line = (self.data / "operator.token").read_text().strip()
        self.operator, self.token = [tuple(line.split(": ", 1))], line.rpartition(" ")[2]

    @property
    def data(self):
        return Path(self.folder.name) / "data"

    def start(self):
        env = {k: v for k, v in os.environ.items() if not k.startswith("PORTICO_")}
        env.update(PORTICO__AUTH__JWKS_FILE=str(Path(self.folder.name) / "jwks.json"), PORTICO__AUTH__ISSUER="https://issuer.test",
                   PORTICO__AUTH__AUDIENCE="portico")
        arguments = ["--data-dir", str(self.data), "--listen", f"127.0.0.1:{self.port}", "--consul-listen", "off",
                     "--admin-listen", "127.0.0.1:0", "--grpc-listen", "127.0.0.1:0",
                     "--internal-listen", "127.0.0.1:0", "--no-demo", "--ready-json"]
        loud = None if os.environ.get("NOTES_VERBOSE") else subprocess.DEVNULL
        self.process = subprocess.Popen([PORTICO, *arguments], env=env, stdout=subprocess.PIPE, stderr=loud, text=True)
        # Log lines are JSON too and may come before.
        ready = next(line for line in map(json.loads, self.process.stdout) if line.get("event") == "ready")
        self.url = ready["http"].rstrip("/")
        self.port = int(self.url.rpartition(":")[2])
        self.reader = threading.Thread(target=self.process.stdout.read, daemon=True)
        self.reader.start()

    def kill(self):
        self.process.kill()
        self.ended()

    def ended(self):
        self.process.wait(PATIENCE_S)
        self.reader.join()
        self.process.stdout.close()

    def close(self):
        self.process.terminate()
        self.ended()
        self.folder.cleanup()

    def example(self, language, **env):
        return Child(EXAMPLES[language], self, PORTICO_TOKEN=self.token, **env)

    def call(self, method, path, who=(), body=None):
        status, headers, doc = send(self.port, method, path, [("Host", "127.0.0.1"), *who], body)
        return status, doc

    def instances(self, name="notes"):
        status, doc = self.call("GET", f"/api/registry/services?name={name}", self.operator)
        assert status == 200, doc
        return doc["items"]

    def until(self, what):
        """Waits for a condition of the other side, which no event tells."""
        deadline = time.monotonic() + PATIENCE_S
        while not (result := what()):
            assert time.monotonic() < deadline, "it did not come to pass"
        return result

    def is_gone(self, name="notes"):
        """Nobody gets requests any more; whoever drains is removed later."""
        return all(instance["state"] == "draining" for instance in self.instances(name))

    def ready(self, count, name="notes"):
        return self.until(lambda: (found := [i for i in self.instances(name) if i["state"] == "ready"]) and len(found) == count and found)


class ThroughTheGateway(unittest.TestCase):
    def setUp(self):
        self.door = Door()
        self.addCleanup(self.door.close)

    def test_every_language(self):
        door = self.door
        for language in EXAMPLES:
            with self.subTest(language), door.example(language) as child:
                port = door.ready(1)[0]["port"]
                status, note = door.call("POST", "/api/notes/notes", door.alice, NOTE)
                self.assertEqual((status, note.get("author")), (201, "alice"), note)
                mine = f"/api/notes/notes/{note['id']}"
                self.assertEqual(door.call("GET", mine, door.alice), (200, note))
                self.assertEqual(door.call("GET", mine, door.carol), (200, note), "the same tenant")
                self.assertEqual(door.call("GET", mine, door.bob)[0], 404, "another tenant")
                spoofed = [*door.bob, ("X-Portico-Tenant", TENANTS["acme"]), ("X-Portico-User", "alice")]
                self.assertEqual(door.call("GET", mine, spoofed)[0], 404, "headers of clients do not count")
                self.assertEqual(door.call("GET", "/api/notes/notes?limit=1&cursor=", door.alice)[0], 400, "the query arrives")
                for method, path, body in (("POST", "/api/notes/notes", NOTE), ("DELETE", mine, None)):
                    self.assertEqual(door.call(method, path, door.carol, body)[0], 403, "without the permission")
                    self.assertEqual(door.call(method, path, (), body)[0], 401, "without a credential")
                self.assertEqual(door.call("GET", mine)[0], 401)
                self.assertEqual(send(port, "GET", f"/notes/{note['id']}")[0], 401, "past the gateway")
                odd = "/api/notes/notes/caf%C3%A9?q=%E2%9C%93+1"
                self.assertEqual(door.call("GET", odd, door.alice)[0], 404, "the target is signed as it arrives")
                self.assertEqual(door.call("DELETE", mine, door.alice)[0], 204)
                self.assertIn("/api/notes/notes/{id}", door.until(self.merged_paths))
                child.terminate()
                self.assertEqual(child.exit_code(), 0)
                status, doc = door.call("GET", "/api/notes/notes", door.alice)
                self.assertEqual((status, doc["code"]), (503, "gateway.no_instance"))
                door.until(door.is_gone)

    def merged_paths(self):
        _, doc = self.door.call("GET", "/openapi.json", self.door.operator)
        return [path for path in doc["paths"] if path.startswith("/api/notes/")]

    def under_load(self, change):
        """Everything that clients got while `change` went on, as a set of (method, status)."""
        seen, stop = set(), threading.Event()

        def load(method, path, body):
            while not stop.is_set():
                seen.add((method, self.door.call(method, path, self.door.alice, body)[0]))
        work = [("GET", "/api/notes/notes", None), ("POST", "/api/notes/notes", {"title": "x"}), ("GET", "/api/notes/notes/none", None)]
        threads = [threading.Thread(target=load, args=one) for one in work]
        [thread.start() for thread in threads]
        try:
            change()
        finally:
            stop.set()
            [thread.join() for thread in threads]
        return seen

    def test_instances_leave_without_a_lost_request(self):
        children = [self.door.example(language) for language in EXAMPLES]
        try:
            self.door.ready(3)

            def leave():
                for child in children[:2]:
                    child.terminate()
                    self.assertEqual(child.exit_code(), 0)
            self.assertEqual(self.under_load(leave), {("GET", 200), ("POST", 400), ("GET", 404)})
        finally:
            [child.__exit__() for child in children]

    def test_an_instance_dies_without_an_error_for_idempotent_requests(self):
        children = [self.door.example(language) for language in EXAMPLES]
        try:
            self.door.ready(3)

            def die():
                children[0].process.kill()
                children[0].process.wait()
                self.door.ready(2)
            seen = {one for one in self.under_load(die) if one[0] == "GET"}
            self.assertEqual(seen, {("GET", 200), ("GET", 404)})
        finally:
            [child.__exit__() for child in children]

    def test_the_gateway_dies_and_comes_back(self):
        with self.door.example("python"), self.door.example("node"):
            self.door.ready(2)
            self.door.kill()
            self.door.start()
            self.door.until(lambda: self.door.call("GET", "/api/notes/notes", self.door.alice)[0] == 200)
            self.door.ready(2)

    def test_below_portico_run(self):
        door = self.door
        for language in EXAMPLES:
            name = f"jotter-{language}"
            command = [PORTICO, "run", "--data-dir", str(door.data), "--name", name, "--health", "/healthz", "--", *EXAMPLES[language]]
            with self.subTest(language), Child(command, door, PORTICO_TOKEN=door.token) as child:
                door.ready(1, name)
                status, note = door.call("POST", f"/api/{name}/notes", door.alice, NOTE)
                self.assertEqual((status, note.get("author")), (201, "alice"), note)
                port = door.instances(name)[0]["port"]
                self.assertEqual(send(port, "GET", "/notes")[0], 401)
                child.terminate()
                self.assertEqual(child.exit_code(), 0)
                door.until(lambda: door.is_gone(name))

    def test_a_token_is_for_its_name(self):
        _, made = self.door.call("POST", "/api/registry/tokens", self.door.operator, {"name_pattern": "notes"})
        self.assertTrue(re.fullmatch("prt_.+", made["token"]), made)
        with Child(EXAMPLES["python"], self.door, PORTICO_TOKEN=made["token"]):
            self.door.ready(1)


if __name__ == "__main__":
    unittest.main()
