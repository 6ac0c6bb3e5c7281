"""The SDK itself: golden signatures, the memory against replays, WSGI and ASGI, calls, statements."""
import asyncio
import base64
import json
import logging
import threading
import time
import unittest
from wsgiref.util import setup_testing_defaults

from fake_gateway import ROOT, FakeGateway, signed
import portico_sdk
from portico_sdk import ORDER, Identity, Plugin, Problem, Refused, Verifier, current, service, sign, signature_base

GOLDEN = json.loads((ROOT / "sdk" / "golden" / "signature.json").read_text(encoding="utf-8"))
CONFIG = {"name": "hello", "version": "1", "port": 1, "openapi_url": "/openapi.json"}
ALICE = {"user": "alice", "tenant": "acme", "roles": "admin,user", "scopes": "a:b:c d:e:f", "aal": "2", "request_id": "req-1234"}
logging.getLogger("portico").setLevel(logging.CRITICAL)


class Golden(unittest.TestCase):
    def test_base_and_signature(self):
        self.assertEqual(GOLDEN["order"], list(ORDER))
        for case in GOLDEN["cases"]:
            with self.subTest(case["name"]):
                base = signature_base(case["timestamp_ms"], case["method"], case["target"], case["values"])
                self.assertEqual(base.decode(), case["base"])
                self.assertEqual(sign(case["secret"], base), case["signature"])

    def test_the_page_shows_the_same_values(self):
        page = (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")
        for case in GOLDEN["cases"]:
            self.assertIn(f"secret `{case['secret']}`:\n\n```text\n{case['base']}\n```\n\n`{case['signature']}`", page)

    def test_identity(self):
        for case in GOLDEN["cases"]:
            with self.subTest(case["name"]):
                headers = [(f"X-Portico-{name}", value) for name, value in case["values"].items()]
                headers += [("X-Portico-Timestamp", str(case["timestamp_ms"])), ("X-Portico-Signature", case["signature"])]
                got = Verifier(case["secret"]).verify(case["method"], case["target"], headers, case["timestamp_ms"])
                want = case["identity"]
                self.assertEqual(got, Identity(want["user"] or None, want["tenant"] or None, want["session"] or None, tuple(
                    sorted(want["roles"])), tuple(sorted(want["scopes"])), int(want["aal"] or 0), want["request_id"]))

    def test_conversations(self):
        for talk in GOLDEN["verify"]:
            with self.subTest(talk["name"]):
                verifier = Verifier(*talk["secrets"])
                for request in talk["requests"]:
                    try:
                        verifier.verify(request["method"], request["target"], request["headers"], request["now_ms"])
                        got = "ok"
                    except Refused as refused:
                        got = str(refused)
                    self.assertEqual(got, request["expect"])


class Memory(unittest.TestCase):
    def setUp(self):
        self.verifier = Verifier("pis_x", memory=3)

    def post(self, stamp_ms, request_id, now_ms):
        try:
            self.verifier.verify("POST", "/", signed("POST", "/", "pis_x", stamp_ms, request_id=request_id), now_ms)
            return "ok"
        except Refused as refused:
            return str(refused)

    def test_is_bounded_and_never_lets_a_replay_through(self):
        times = [100_000 + 1000 * n for n in range(10)]
        for n, stamp in enumerate(times):
            self.assertEqual(self.post(stamp, f"r-{n}", 110_000), "ok")
            self.assertLessEqual(sum(map(len, self.verifier._seen.values())), 3)
        for n, stamp in enumerate(times):
            self.assertEqual(self.post(stamp, f"r-{n}", 110_000), "replay")
        self.assertEqual(self.post(times[-1] + 500, "late", 110_000), "ok")

    def test_forgets_what_is_too_old_to_be_replayed(self):
        for n in range(3):
            self.assertEqual(self.post(100_000, f"r-{n}", 100_000), "ok")
        self.assertEqual(self.post(162_000, "r-3", 162_000), "ok")
        self.assertEqual(self.post(162_000, "r-3", 162_000), "replay")
        self.assertEqual(sum(map(len, self.verifier._seen.values())), 1)

    def test_one_of_many_threads_wins(self):
        headers, won = signed("POST", "/", "pis_y"), []
        verifier = Verifier("pis_y")

        def run():
            try:
                verifier.verify("POST", "/", headers)
                won.append(1)
            except Refused:
                pass
        threads = [threading.Thread(target=run) for _ in range(16)]
        [t.start() for t in threads]
        [t.join() for t in threads]
        self.assertEqual(len(won), 1)

    def test_a_verifier_without_a_secret_lets_nothing_through(self):
        with self.assertRaises(Refused):
            Verifier(None, "").verify("GET", "/", signed("GET", "/", ""))


def wsgi(app, method, path, headers=(), query="", **environ):
    setup_testing_defaults(environ)
    environ.update({"REQUEST_METHOD": method, "PATH_INFO": path, "QUERY_STRING": query})
    environ.update({"HTTP_" + name.upper().replace("-", "_"): value for name, value in headers})
    answer = {}
    body = app(environ, lambda status, headers: answer.update(status=int(status[:3]), headers=headers))
    raw = b"".join(body)
    getattr(body, "close", lambda: None)()
    return answer["status"], raw


class Wsgi(unittest.TestCase):
    def setUp(self):
        @service(CONFIG, secret="pis_x")
        def app(environ, start_response):
            if environ["PATH_INFO"] == "/teapot":
                raise Problem(418, "hello.teapot", "short and stout")
            if environ["PATH_INFO"] == "/crash":
                raise KeyError("crash")
            start_response("200 OK", [])
            return [current().tenant.encode() if current() else b"anybody"]
        self.app = app

    def through(self, method, path, target=None, **more):
        return wsgi(self.app, method, path, signed(method, target or path, "pis_x", **ALICE), **more)

    def test_checks_and_identifies(self):
        self.assertEqual(self.through("GET", "/x"), (200, b"acme"))
        self.assertEqual(wsgi(self.app, "GET", "/x")[0], 401)
        self.assertEqual(wsgi(self.app, "GET", "/openapi.json"), (200, b"anybody"))
        self.assertEqual(json.loads(wsgi(self.app, "GET", "/healthz")[1]), {"status": "ok"})
        self.assertEqual(self.app.portico._in_flight, 0)

    def test_target_from_the_server_or_rebuilt(self):
        path = "/caf\u00c3\u00a9"  # PEP 3333: UTF-8 bytes as latin-1
        self.assertEqual(self.through("GET", path, "/caf%C3%A9?q=1", query="q=1")[0], 200)
        self.assertEqual(self.through("GET", path, "/caf%c3%a9?q=1", query="q=1", REQUEST_URI="/caf%c3%a9?q=1")[0], 200)
        self.assertEqual(self.through("GET", path, "/caf%c3%a9?q=1", query="q=1")[0], 401)

    def test_problems_and_crashes_end_what_is_in_flight(self):
        status, raw = self.through("GET", "/teapot")
        self.assertEqual((status, json.loads(raw)["code"], json.loads(raw)["request_id"]), (418, "hello.teapot", "req-1234"))
        with self.assertRaises(KeyError):
            self.through("GET", "/crash")
        self.assertEqual(self.app.portico._in_flight, 0)


async def asgi(app, method, path, headers=(), kind="http", raw_path=None, query=b""):
    scope = {"type": kind, "path": path, "raw_path": raw_path, "query_string": query,
             "headers": [(n.lower().encode(), v.encode()) for n, v in headers], "http_version": "1.1", "scheme": "http",
             "server": ("127.0.0.1", 1), "client": ("127.0.0.1", 2), "root_path": "", "extensions": {}, "state": {}}
    if kind == "http":
        scope["method"] = method
    sent = []

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):
        sent.append(message)
    await app(scope, receive, send)
    return sent


def answer(sent):
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:])


class Asgi(unittest.TestCase):
    def setUp(self):
        @service(CONFIG, secret="pis_x")
        async def app(scope, receive, send):
            if scope["path"] == "/teapot":
                raise Problem(418, "hello.teapot")
            if scope["type"] == "websocket":
                return await send({"type": "websocket.accept"})
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": current().tenant.encode()})
        self.app = app

    def run_one(self, *args, **more):
        return asyncio.run(asgi(self.app, *args, **more))

    def test_checks_and_identifies(self):
        good = signed("GET", "/caf%C3%A9?q=1", "pis_x", **ALICE)
        self.assertEqual(answer(self.run_one("GET", "/café", good, raw_path=b"/caf%C3%A9", query=b"q=1")), (200, b"acme"))
        self.assertEqual(answer(self.run_one("GET", "/café", good, query=b"q=1")), (200, b"acme"))
        self.assertEqual(answer(self.run_one("GET", "/café", good))[0], 401)
        self.assertEqual(answer(self.run_one("GET", "/café", good + good[:1], query=b"q=1"))[0], 401)
        self.assertEqual(answer(self.run_one("GET", "/teapot", signed("GET", "/teapot", "pis_x")))[0], 418)
        self.assertEqual(answer(self.run_one("GET", "/healthz"))[0], 200)
        self.assertEqual(self.app.portico._in_flight, 0)

    def test_websockets(self):
        good = signed("GET", "/ws", "pis_x", **ALICE)
        self.assertEqual(self.run_one("GET", "/ws", good, kind="websocket"), [{"type": "websocket.accept"}])
        self.assertEqual(self.run_one("GET", "/ws", kind="websocket")[0]["type"], "websocket.close")


class Frameworks(unittest.TestCase):
    def test_flask(self):
        try:
            import flask
        except ImportError:
            self.skipTest("Flask is not installed")
        app = service(CONFIG, secret="pis_x")(flask.Flask("hello"))

        @app.get("/who")
        def who():
            if flask.request.args.get("problem"):
                raise Problem(409, "hello.conflict")
            return current().user

        self.assertEqual(wsgi(app, "GET", "/who", signed("GET", "/who", "pis_x", **ALICE)), (200, b"alice"))
        self.assertEqual(wsgi(app, "GET", "/who", signed("GET", "/who?problem=1", "pis_x", **ALICE), query="problem=1")[0], 409)
        self.assertEqual(wsgi(app, "GET", "/who")[0], 401)
        self.assertEqual(app.portico._in_flight, 0)

    def test_fastapi(self):
        try:
            import fastapi
        except ImportError:
            self.skipTest("FastAPI is not installed")
        app = service(CONFIG, secret="pis_x")(fastapi.FastAPI())

        @app.get("/who")
        def who(problem: bool = False):  # In a thread of its own: the identity must follow.
            if problem:
                raise Problem(409, "hello.conflict")
            return current().user

        def get(target, *headers):
            path, _, query = target.partition("?")
            return answer(asyncio.run(asgi(app, "GET", path, *headers, query=query.encode())))
        self.assertEqual(get("/who", signed("GET", "/who", "pis_x", **ALICE)), (200, b'"alice"'))
        self.assertEqual(get("/who?problem=1", signed("GET", "/who?problem=1", "pis_x", **ALICE))[0], 409)
        self.assertEqual(get("/who")[0], 401)
        self.assertEqual(app.portico._in_flight, 0)


class Calls(unittest.TestCase):
    def setUp(self):
        self.gateway = FakeGateway()
        self.addCleanup(self.gateway.__exit__)
        self.plugin = Plugin(CONFIG, url=self.gateway.url, secret="pis_x")

    def test_call_carries_credential_and_deadline(self):
        self.gateway.script["other"] = [(200, {"now": 1})]
        self.assertEqual(self.plugin.call("clock@2", "/now?zone=utc", timeout_s=5), {"now": 1})
        _, path, headers = self.gateway.next("other")
        self.assertEqual((path, headers["authorization"]), ("/api/clock@2/now?zone=utc", "Bearer pis_x"))
        self.assertEqual(headers["x-portico-deadline-ms"], "5000")

    def test_call_goes_by_the_listener_between_services_where_there_is_one(self):
        inner = FakeGateway()
        self.addCleanup(inner.__exit__)
        inner.script["other"] = [(200, {"by": "internal"})]
        self.gateway.script["register"] = [(201, {**self.gateway.usual("register")[1], "internal_url": inner.url})]
        port = int(self.gateway.url.rpartition(":")[2])  # Some port that listens.
        plugin = Plugin({**CONFIG, "port": port}, url=self.gateway.url, token="prt_test")
        plugin._register()
        self.assertEqual(plugin.call("clock", "/now"), {"by": "internal"})
        _, path, headers = inner.next("other")
        self.assertEqual((path, headers["authorization"]), ("/api/clock/now", "Bearer pis_first"))

    def test_call_never_outlives_the_request_it_serves(self):
        headers = signed("GET", "/", "pis_x", **ALICE) + [("X-Portico-Deadline-Ms", "1500")]
        self.gateway.script["other"] = [(200, {})]
        self.assertIsNone(self.plugin.enter("GET", "/", headers))
        self.plugin.call("clock")
        self.assertLessEqual(int(self.gateway.next("other")[2]["x-portico-deadline-ms"]), 1500)
        self.assertIsNone(self.plugin.enter("GET", "/", headers[:-1] + [("X-Portico-Deadline-Ms", "0")]))
        with self.assertRaises(Problem) as caught:
            self.plugin.call("clock")
        self.assertEqual((caught.exception.status, caught.exception.code), (504, "hello.deadline_exceeded"))
        self.plugin.enter("GET", "/healthz", [])
        self.assertIsNone(current())

    def test_refusals_are_problems_and_redirects_are_not_followed(self):
        doc = {"status": 403, "code": "gateway.caller_not_allowed", "detail": "no", "request_id": "r",
               "errors": [{"field": "caller", "code": "x", "message": "m"}]}
        self.gateway.script["other"] = [(403, doc), (307, {"headers": {"Location": "http://127.0.0.1:9/steal"}}), ("hang up", {})]
        with self.assertRaises(Problem) as caught:
            self.plugin.call("clock", method="POST", body={"a": 1})
        got = caught.exception
        self.assertEqual((got.status, got.code, got.detail, got.request_id, got.errors), (403, doc["code"], "no", "r", doc["errors"]))
        self.assertEqual(self.gateway.next("other")[0], {"a": 1})
        for status in (307, 502):
            with self.assertRaises(Problem) as caught:
                self.plugin.call("clock")
            self.assertEqual(caught.exception.status, status)

    def test_without_a_credential_it_says_so(self):
        with self.assertRaisesRegex(RuntimeError, "PORTICO_TOKEN"):
            Plugin(CONFIG, url=self.gateway.url, token="").start()

    def test_the_operators_file_can_be_the_token(self):
        self.assertEqual(Plugin(CONFIG, token="Authorization: Bearer pop_1\n").token, "pop_1")


class Statements(unittest.TestCase):
    def setUp(self):
        try:
            from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
            from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
        except ImportError:
            self.skipTest("cryptography is not installed")
        self.key, self.gateway = Ed25519PrivateKey.generate(), FakeGateway()
        self.addCleanup(self.gateway.__exit__)
        raw = self.key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        jwk = {"kty": "OKP", "crv": "Ed25519", "kid": "k1", "x": self.b64(raw)}
        self.gateway.script["other"] = [(200, {"keys": [jwk]})]
        self.plugin = Plugin(CONFIG, url=self.gateway.url, secret="pis_x")
        self.plugin.identity = {"jwks_url": self.gateway.url + "/.well-known/jwks.json", "issuer": "urn:portico:test"}

    @staticmethod
    def b64(raw):
        return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()

    def jwt(self, header=(), claims=()):
        head = {"alg": "EdDSA", "typ": "pi+jwt", "kid": "k1", **dict(header)}
        now = int(time.time())
        body = {"iss": "urn:portico:test", "aud": ["hello"], "sub": "alice", "iat": now, "exp": now + 60, **dict(claims)}
        text = ".".join(self.b64(json.dumps(part).encode()) for part in (head, body))
        return f"{text}.{self.b64(self.key.sign(text.encode()))}"

    def test_good_and_bad(self):
        self.assertEqual(self.plugin.verify_statement(self.jwt())["sub"], "alice")
        self.assertEqual(self.plugin.verify_statement(self.jwt(claims={"aud": "hello"}))["sub"], "alice")
        now = int(time.time())
        good = self.jwt()
        for bad in [self.jwt({"alg": "none"}), self.jwt({"alg": "HS256"}), self.jwt({"typ": "at+jwt"}), self.jwt({"kid": "k2"}), self.jwt({"kid": 7}),
                    self.jwt({"crit": ["x"]}), self.jwt({"jwk": {}}), self.jwt(claims={"aud": "other"}), self.jwt(claims={"aud": None}),
                    self.jwt(claims={"iss": "urn:portico:test2"}), self.jwt(claims={"exp": now}), self.jwt(claims={"exp": "never"}),
                    self.jwt(claims={"nbf": now + 120}), self.jwt(claims={"iat": now + 120}),
                    good[:-4], good + ".x", good.replace(".", ".."), "", "a.b.c", "x" * 9000, good[:-90] + "A" * 86]:
            with self.assertRaises(Refused, msg=bad[:40]):
                self.plugin.verify_statement(bad)
        self.assertEqual(self.gateway.calls.qsize(), 1, "keys are fetched once, not for each unknown kid")


class Size(unittest.TestCase):
    def test_stays_one_short_file(self):
        with open(portico_sdk.__file__, encoding="utf-8") as file:
            self.assertLessEqual(len(file.readlines()), 400)


if __name__ == "__main__":
    unittest.main()
