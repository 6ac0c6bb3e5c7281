"""The notes example as a real process behind a fake gateway. NOTES_COMMAND chooses which one (default: Python's)."""
import os
import shlex
import socket
import sys
import time
import unittest

from fake_gateway import PATIENCE_S, ROOT, Child, FakeGateway, send, signed

COMMAND = shlex.split(os.environ.get("NOTES_COMMAND") or f"{sys.executable} examples/python/notes.py")
ALICE = {"user": "alice", "tenant": "acme", "roles": "user", "aal": "1"}
BOB = {"user": "bob", "tenant": "globex", "roles": "user", "aal": "1"}
NOTE = {"title": "milk", "text": "buy some"}


def through(port, method, target, body=None, secret="pis_first", **who):
    return send(port, method, target, signed(method, target, secret, **who), body)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Protocol(unittest.TestCase):
    def test_registers_with_its_configuration(self):
        with FakeGateway() as gateway, Child(COMMAND, gateway):
            body, path, headers = gateway.next("register")
            self.assertEqual(path, "/api/registry/register")
            self.assertEqual(headers["x-portico-protocol"], "1")
            self.assertEqual(headers["authorization"], "Bearer prt_test")
            self.assertEqual((body["name"], body["version"], body["host"]), ("notes", "1.0.0", "127.0.0.1"))
            self.assertGreater(body["port"], 0)
            self.assertEqual(body["health_check_url"], "/healthz")
            writes = {(e["method"], e["path"]) for e in body["endpoints"] if e.get("required_permissions") == ["notes:note:write"]}
            self.assertEqual(writes, {("POST", "/notes"), ("DELETE", "/notes/{id}")})
            known = {"name", "display_name", "version", "host", "port", "base_path", "endpoints", "metadata", "tags", "health_check_url", "id", "tenant",
                     "protocol", "instance_key", "zone", "weight", "heartbeat_s", "default_access", "forward_credentials", "identity_statement", "permissions",
                     "settings_schema", "events", "openapi_url", "console"}
            self.assertLessEqual(set(body), known)
            self.assertEqual(send(body["port"], "GET", "/healthz")[0], 200)

    def test_waits_for_a_gateway_that_is_not_there_yet(self):
        refusals = [("hang up", {}), (503, {"status": 503, "code": "system.draining"}), ("hang up", {})]
        with FakeGateway(register=refusals) as gateway, Child(COMMAND, gateway):
            gateway.next("register")
            body, _, _ = gateway.next("register")
            self.assertEqual(body["name"], "notes")

    def test_heartbeats_with_the_instance_secret(self):
        with FakeGateway(heartbeat_s=0.2) as gateway, Child(COMMAND, gateway):
            gateway.next("register")
            for _ in range(3):
                body, path, headers = gateway.next("heartbeat")
                self.assertEqual((path, body["service_id"]), ("/api/registry/heartbeat", "i-1"))
                self.assertEqual(headers["authorization"], "Bearer pis_first")

    def test_registers_again_when_it_is_forgotten(self):
        forgotten = [(404, {"status": 404, "code": "registry.unknown_instance"})]
        with FakeGateway(heartbeat_s=0.2, heartbeat=forgotten) as gateway, Child(COMMAND, gateway):
            first, _, _ = gateway.next("register")
            gateway.next("heartbeat")
            self.assertEqual(gateway.next("register")[0], first)
            gateway.next("heartbeat")

    def test_a_heartbeat_that_fails_does_not_end_it(self):
        broken = [("hang up", {}), (500, {"status": 500, "code": "system.internal"}), (409, {"status": 409, "code": "registry.drained"})]
        with FakeGateway(heartbeat_s=0.2, heartbeat=broken) as gateway, Child(COMMAND, gateway):
            gateway.next("register")
            for _ in range(3):
                gateway.next("heartbeat")

    def test_takes_a_new_secret_and_keeps_the_old_one(self):
        rotate = [(200, {"next_s": 30, "drain": False, "directory_seq": 8, "key_rotation": {"instance_secret": "pis_second"}})]
        with FakeGateway(heartbeat_s=0.2, heartbeat=rotate) as gateway, Child(COMMAND, gateway) as child:
            port = gateway.next("register")[0]["port"]
            gateway.next("heartbeat")
            deadline = time.monotonic() + PATIENCE_S
            while through(port, "GET", "/notes", secret="pis_second", **ALICE)[0] != 200:  # The answer is on its way to the child.
                self.assertLess(time.monotonic(), deadline)
            self.assertEqual(through(port, "GET", "/notes", secret="pis_first", **ALICE)[0], 200)
            self.assertEqual(through(port, "GET", "/notes", secret="pis_third", **ALICE)[0], 401)
            child.terminate()
            _, _, headers = gateway.next("deregister")
            self.assertEqual(headers["authorization"], "Bearer pis_second")

    def test_gets_a_new_secret_when_the_old_one_is_lost(self):
        known = [(200, {"id": "i-1", "state": "ready", "heartbeat_s": 30, "instance_secret": None})]
        with FakeGateway(register=known) as gateway, Child(COMMAND, gateway):
            gateway.next("register")
            body, path, _ = gateway.next("deregister")
            self.assertEqual((path, body["now"]), ("/api/registry/deregister/i-1", True))
            port = gateway.next("register")[0]["port"]
            deadline = time.monotonic() + PATIENCE_S
            while through(port, "GET", "/notes", **ALICE)[0] != 200:
                self.assertLess(time.monotonic(), deadline)

    def test_drains_on_sigterm(self):
        with FakeGateway() as gateway, Child(COMMAND, gateway) as child:
            port = gateway.next("register")[0]["port"]
            raw = b'{"title": "milk", "text": "buy some"}'
            head = "POST /notes HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n" % len(raw)
            head += "".join(f"{n}: {v}\r\n" for n, v in signed("POST", "/notes", "pis_first", **ALICE)) + "\r\n"
            with socket.create_connection(("127.0.0.1", port), PATIENCE_S) as slow:
                slow.sendall(head.encode() + raw[:10])
                while send(port, "GET", "/healthz")[0] != 200:
                    pass
                child.terminate()
                _, path, headers = gateway.next("deregister")
                self.assertEqual(path, "/api/registry/deregister/i-1")
                self.assertEqual(headers["authorization"], "Bearer pis_first")
                self.assertEqual(send(port, "GET", "/healthz")[0], 503)
                # What the gateway sent before it knew is still served, also what is half here.
                self.assertEqual(through(port, "GET", "/notes", **ALICE)[0], 200)
                slow.sendall(raw[10:])
                self.assertEqual(slow.recv(12), b"HTTP/1.1 201")
            self.assertEqual(child.exit_code(), 0)
            with self.assertRaises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", port), 1)

    def test_stops_without_a_gateway(self):
        with FakeGateway(deregister=[("hang up", {})]) as gateway, Child(COMMAND, gateway) as child:
            gateway.next("register")
            child.terminate()
            self.assertEqual(child.exit_code(), 0)

    def test_below_portico_run_it_only_verifies_and_drains(self):
        port = free_port()
        with FakeGateway() as gateway:
            with Child(COMMAND, gateway, PORTICO_INSTANCE_SECRET="pis_given", PORTICO_SERVICE="jotter", PORT=str(port)) as child:
                deadline = time.monotonic() + PATIENCE_S
                while True:
                    try:
                        got = through(port, "GET", "/notes", secret="pis_given", **ALICE)
                        break
                    except ConnectionRefusedError:
                        self.assertLess(time.monotonic(), deadline)
                self.assertEqual(got[0], 200)
                status, _, doc = through(port, "GET", "/notes", secret="pis_first", **ALICE)
                self.assertEqual((status, doc["code"]), (401, "jotter.signature_invalid"))
                child.terminate()
                self.assertEqual(child.exit_code(), 0)
            self.assertTrue(gateway.calls.empty())


class Service(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.gateway = FakeGateway()
        cls.child = Child(COMMAND, cls.gateway)
        cls.port = cls.gateway.next("register")[0]["port"]
        deadline = time.monotonic() + PATIENCE_S
        while through(cls.port, "GET", "/notes", **ALICE)[0] != 200 and time.monotonic() < deadline:
            pass

    @classmethod
    def tearDownClass(cls):
        cls.child.__exit__()
        cls.gateway.__exit__()

    def test_refuses_what_did_not_come_through_the_gateway(self):
        good = signed("POST", "/notes", "pis_first", **ALICE)
        old = signed("POST", "/notes", "pis_first", int(time.time() * 1000) - 61_000, **ALICE)
        for name, headers in {
            "unsigned": [("X-Portico-Tenant", "acme"), ("X-Portico-User", "alice")],
            "signed with another secret": signed("POST", "/notes", "pis_other", **ALICE),
            "too old": old,
            "tenant changed": [(n, "globex" if n == "X-Portico-Tenant" else v) for n, v in good],
            "tenant twice": good + [("X-Portico-Tenant", "globex")],
            "roles missing": [(n, v) for n, v in good if n != "X-Portico-Roles"],
            "signature cut": [(n, v[:-1] if n == "X-Portico-Signature" else v) for n, v in good],
        }.items():
            with self.subTest(name):
                status, answered, doc = send(self.port, "POST", "/notes", headers, NOTE)
                self.assertEqual((status, doc["code"]), (401, "notes.signature_invalid"))
                self.assertEqual(answered["Content-Type"], "application/problem+json")
        self.assertEqual(send(self.port, "POST", "/notes", good, NOTE)[0], 201)
        self.assertEqual(send(self.port, "POST", "/notes", good, NOTE)[0], 401, "replayed")

    def test_target_is_compared_as_sent(self):
        target = "/notes?limit=5&cursor="
        self.assertEqual(send(self.port, "GET", "/notes?limit=6", signed("GET", target, "pis_first", **ALICE))[0], 401)
        odd = "/notes/caf%C3%A9%2Fx?q=%E2%9C%93"
        self.assertEqual(through(self.port, "GET", odd, **ALICE)[0], 404)

    def test_a_tenant_sees_its_own_notes_only(self):
        status, _, note = through(self.port, "POST", "/notes", NOTE, **ALICE)
        self.assertEqual((status, note["title"], note["author"]), (201, "milk", "alice"))
        mine = f"/notes/{note['id']}"
        self.assertEqual(through(self.port, "GET", mine, **ALICE)[2], note)
        self.assertIn(note, through(self.port, "GET", "/notes", **ALICE)[2]["items"])
        self.assertNotIn(note["id"], str(through(self.port, "GET", "/notes", **BOB)[2]))
        for method in ("GET", "DELETE"):
            status, _, doc = through(self.port, method, mine, **BOB)
            self.assertEqual((status, doc["code"]), (404, "notes.not_found"))
        self.assertEqual(through(self.port, "GET", f"/notes?cursor={note['id']}", **BOB)[0], 400)
        self.assertEqual(through(self.port, "DELETE", mine, **ALICE)[0], 204)
        self.assertEqual(through(self.port, "GET", mine, **ALICE)[0], 404)
        self.assertEqual(through(self.port, "DELETE", mine, **ALICE)[0], 404)

    def test_without_a_tenant_there_is_nothing(self):
        for method, target, body in (("GET", "/notes", None), ("POST", "/notes", NOTE), ("GET", "/notes/1", None)):
            status, _, doc = through(self.port, method, target, body)
            self.assertEqual((status, doc["code"]), (403, "notes.tenant_required"))

    def test_pages(self):
        who = {"user": "carol", "tenant": "pages"}
        written = [through(self.port, "POST", "/notes", {"title": str(n), "text": "x"}, **who)[2]["id"] for n in range(5)]
        seen, cursor = [], ""
        while cursor is not None:
            page = through(self.port, "GET", "/notes?limit=2" + (f"&cursor={cursor}" if cursor else ""), **who)[2]
            seen += [note["id"] for note in page["items"]]
            cursor = page["next_cursor"]
        self.assertEqual(seen, written)

    def test_bad_input_names_every_fault(self):
        def faults(got):
            return sorted((e["field"], e["code"]) for e in got[2]["errors"])
        got = through(self.port, "POST", "/notes", {"title": " ", "text": "x" * 10_001, "colour": "red"}, **ALICE)
        self.assertEqual((got[0], got[2]["code"]), (400, "notes.invalid"))
        self.assertEqual(faults(got), [("colour", "unknown"), ("text", "too_long"), ("title", "required")])
        got = through(self.port, "GET", "/notes?limit=201&cursor=none&x=1", **ALICE)
        self.assertEqual((got[0], faults(got)), (400, [("cursor", "unknown"), ("limit", "range"), ("x", "unknown")]))
        for body in (b"{", b"[1]", b"", b"\xff\xfe"):
            self.assertEqual(through(self.port, "POST", "/notes", body, **ALICE)[0], 400, body)
        self.assertEqual(through(self.port, "POST", "/notes", b" " * 70_000, **ALICE)[0], 413)
        self.assertIn(through(self.port, "PUT", "/notes", NOTE, **ALICE)[0], (404, 405))

    def test_openapi_and_health_need_no_signature(self):
        status, _, doc = send(self.port, "GET", "/openapi.json")
        self.assertEqual((status, doc["openapi"]), (200, "3.1.0"))
        self.assertEqual(send(self.port, "GET", "/healthz")[2], {"status": "ok"})
        self.assertEqual(send(self.port, "POST", "/openapi.json")[0], 401)
        self.assertEqual(send(self.port, "GET", "/openapi.json/../notes")[0], 401)


if __name__ == "__main__":
    unittest.main()
