"""Portico plug-in SDK: one file, standard library only, Python 3.9 or newer. The protocol is in docs/plugins.md.

    @service(SERVICE_CONFIG)                  # on a BaseHTTPRequestHandler class; then serve(Notes)
    app = service(SERVICE_CONFIG)(Flask(..))  # any WSGI application; then app.portico.start(), app.run(port=..)
    app = service(SERVICE_CONFIG)(FastAPI())  # any ASGI application; starts with the server's lifespan

In a request, current() is the caller's identity. Environment: PORTICO_URL, PORTICO_TOKEN, PORT. Under `portico run`, which
registers by itself, this file only verifies and drains. One process is one instance: do not fork workers below it.
"""
import base64, contextlib, contextvars, hashlib, hmac, inspect, json, logging, os, random, re, signal, socket, threading, time
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple, Optional, Tuple
from urllib.parse import quote, urljoin, urlsplit
ORDER = ("user", "tenant", "session", "roles", "scopes", "aal", "request-id")
SIGNED = ORDER + ("timestamp", "signature")
WINDOW_MS, MAX_ANSWER = 60_000, 16 * 1024 * 1024
log = logging.getLogger("portico")
_identity = contextvars.ContextVar("portico_identity", default=None)
current = _identity.get  # The Identity of the request that this thread or task is answering, or None.

class Problem(Exception):
    """RFC 9457 problem+json: raise it in a handler to answer it; call() raises it when it is refused."""
    def __init__(self, status, code, detail="", errors=(), request_id=None):
        super().__init__(f"{status} {code}: {detail}" + "".join(f"; {e.get('field')}: {e.get('message')}" for e in errors))
        self.status, self.code, self.detail, self.errors, self.request_id = status, code, detail, list(errors), request_id

    def answer(self):  # (status, headers, body), for any server
        doc = {"type": "about:blank", "title": self.code, "status": self.status, "code": self.code, "detail": self.detail,
               "errors": self.errors, "request_id": self.request_id or getattr(current(), "request_id", "")}
        return _json(self.status, {key: value for key, value in doc.items() if value}, "application/problem+json")

    @classmethod
    def read(cls, status, raw):
        try:
            doc = json.loads(raw)
            return cls(status, doc["code"], doc.get("detail", ""), doc.get("errors") or (), doc.get("request_id"))
        except (ValueError, KeyError, TypeError, AttributeError):
            return cls(status, f"http.{status}", raw[:200].decode("utf-8", "replace"))

class Refused(Exception):
    """Not from the gateway, or not from just now; why is for the log, never for the caller."""

class Identity(NamedTuple):
    """Who calls, as the gateway established it; None where there is nothing. `deadline` is on time.monotonic()."""
    user: Optional[str]
    tenant: Optional[str]
    session: Optional[str]
    roles: Tuple[str, ...]
    scopes: Tuple[str, ...]
    aal: int
    request_id: str
    deadline: Optional[float] = None

def signature_base(timestamp_ms, method, target, values):
    """The text that is signed; target and values are header text as it is on the wire (latin-1)."""
    lines = ["portico/headers/1", str(timestamp_ms), method, target, *(f"{name}:{values[name]}" for name in ORDER)]
    return "\n".join(lines).encode("latin-1")

def sign(secret, base):
    return "v1=" + hmac.new(secret.encode(), base, hashlib.sha256).hexdigest()

class Verifier:
    """Checks the identity headers; remembers up to `memory` unsafe requests, and refuses seconds that it had to forget."""
    def __init__(self, *secrets, memory=100_000):
        self.secrets, self._memory = [s for s in secrets if s], memory
        self._seen, self._count, self._floor, self._lock = {}, 0, -1, threading.Lock()

    def rotate(self, secret):  # The one before it holds until the next rotation.
        if secret and secret not in self.secrets[:1]:
            self.secrets = [secret] + self.secrets[:1]

    def verify(self, method, target, headers, now_ms=None):
        """The Identity, or Refused. `target` is path and query as received, `headers` are all (name, value) pairs."""
        now_ms, found = int(time.time() * 1000) if now_ms is None else now_ms, {}
        for name, value in headers:
            found.setdefault(name.lower().replace("x-portico-", "", 1), []).append(value.strip(" \t"))
        counts = [len(found.get(name, ())) for name in SIGNED]
        if set(counts) != {1}:
            raise Refused("duplicate" if max(counts) > 1 else "missing")
        one = {name: found[name][0] for name in SIGNED}
        given = one["signature"].split(",")  # Two while the secret rotates.
        if not (re.fullmatch("[0-9]{1,15}", one["timestamp"]) and re.fullmatch("[0-9]{0,2}", one["aal"])
                and len(given) <= 2 and all(re.fullmatch("v1=[0-9a-f]{64}", mac) for mac in given)):
            raise Refused("malformed")
        stamp, base = int(one["timestamp"]), signature_base(one["timestamp"], method, target, one)
        if abs(now_ms - stamp) > WINDOW_MS:
            raise Refused("skew")
        if not any(hmac.compare_digest(sign(secret, base), mac) for secret in self.secrets for mac in given):
            raise Refused("mismatch")
        if method not in ("GET", "HEAD", "OPTIONS", "TRACE"):
            self._remember(stamp // 1000, hashlib.sha256(base).digest(), now_ms)
        left = found.get("deadline-ms", [""])[0]
        deadline = time.monotonic() + int(left) / 1000 if re.fullmatch("[0-9]{1,9}", left) else None
        return Identity(one["user"] or None, one["tenant"] or None, one["session"] or None, tuple(filter(None, one[
            "roles"].split(","))), tuple(one["scopes"].split()), int(one["aal"] or 0), one["request-id"], deadline)

    def _remember(self, second, digest, now_ms):
        with self._lock:
            for old in [s for s in self._seen if (s + 1) * 1000 < now_ms - WINDOW_MS]:
                self._count -= len(self._seen.pop(old))
            if second <= self._floor or digest in self._seen.get(second, ()):
                raise Refused("replay")
            if self._count >= self._memory:
                self._floor = min(self._seen)
                self._count -= len(self._seen.pop(self._floor))
            self._seen.setdefault(second, set()).add(digest)
            self._count += 1

class Plugin:
    """One instance of one service: registration, heartbeats, verification, calls, drain."""
    def __init__(self, config, url=None, token=None, secret=None, linger_s=1.0, drain_s=30.0):
        env = os.environ
        self.url, self.name = url or env.get("PORTICO_URL") or "http://127.0.0.1:8080", env.get("PORTICO_SERVICE") or config["name"]
        self.config = {"host": "127.0.0.1", "heartbeat_s": 30, "health_check_url": "/healthz", **config}
        self.config.update(name=self.name, port=int(env.get("PORT") or config.get("port", 0)))
        self.token = (token or env.get("PORTICO_TOKEN") or "").strip().rpartition(" ")[2]
        self.verifier = Verifier(secret or env.get("PORTICO_INSTANCE_SECRET"))
        self.health_path = urlsplit(self.config["health_check_url"]).path
        self.unsigned = {self.health_path, urlsplit(self.config.get("openapi_url", "")).path}
        self.id, self.identity, self.internal, self.state = None, {}, None, "managed" if self.verifier.secrets else "new"
        self.linger_s, self.drain_s, self._stopped, self._chained, self._keys, self._keys_at = linger_s, drain_s, False, {}, {}, -31.0
        self._stop, self._lock, self._idle, self._in_flight = threading.Event(), threading.Lock(), threading.Condition(), 0

    def start(self):
        """Takes the stop signals (in the main thread) and registers as soon as the port listens. Harmless to repeat."""
        self.take_signals()
        if self.state != "new":
            return
        if not self.token:
            raise RuntimeError("PORTICO_TOKEN is not set: make one with `portico plugin token`, or use `portico run`")
        self.state = "starting"
        threading.Thread(target=self._run, name="portico", daemon=True).start()

    def take_signals(self):
        for number in (signal.SIGTERM, signal.SIGINT):
            if threading.current_thread() is threading.main_thread() and signal.getsignal(number) != self._on_signal:
                self._chained[number] = signal.signal(number, self._on_signal)

    def _run(self):
        delay = 0.25
        while not self._stop.is_set():
            try:
                wait, delay = self._register(), 0.25
                while wait and not self._stop.wait(wait * random.uniform(0.9, 1.0)):
                    wait = self._heartbeat(wait)
            except (Problem, OSError, ValueError, LookupError, TypeError) as fault:
                log.warning("cannot register port %s at %s: %s; next try in %.1f s at most", self.config["port"], self.url, fault, delay)
                self._stop.wait(delay * random.uniform(0.5, 1.0))
                delay = min(delay * 2, 30.0)

    def _register(self):
        """Registers and returns the seconds until the first heartbeat."""
        host = "127.0.0.1" if self.config["host"] == "auto" else self.config["host"]
        socket.create_connection((host, self.config["port"]), 1).close()  # A port that nobody listens on is not registered.
        for _ in range(2):
            with self._lock:  # drain() must know whether there is something to deregister.
                if self._stop.is_set():
                    return None
                doc = self._send("POST", "/api/registry/register", self.token, self.config, 10)
                self.id, self.state, self.identity, self.internal = doc["id"], doc.get("state", "ready"), doc.get("identity") or {}, doc.get("internal_url")
                self.verifier.rotate(doc.get("instance_secret"))
            if self.verifier.secrets:
                break
            # A process before us took the secret with it: only a new registration shows one again.
            self._send("POST", f"/api/registry/deregister/{self.id}", self.token, {"now": True, "reason": "secret lost"}, 10)
        log.info("registered %s as %s at %s", self.name, self.id, self.url)
        return float(doc.get("heartbeat_s") or self.config["heartbeat_s"])

    def _heartbeat(self, before):
        """Seconds until the next one, or None to register again."""
        try:
            doc = self._send("POST", "/api/registry/heartbeat", self.credential(), {"service_id": self.id}, 10)
        except Problem as refusal:
            self.state = "drained" if refusal.status == 409 else self.state  # Only an operator brings it back.
            return None if refusal.status in (401, 404) else before
        except OSError:
            return min(before, 5.0)
        self.state, rotation = "draining" if doc.get("drain") else "ready", doc.get("key_rotation")
        if rotation:
            self.verifier.rotate(rotation.get("instance_secret") if isinstance(rotation, dict) else None)
        return None if rotation is True else min(max(float(doc.get("next_s") or before), 0.1), 300.0)

    def drain(self):
        """Deregisters, serves on while the news travels, and waits for what is in flight: False if that took too long."""
        self._stop.set()
        with self._lock:
            self.state = "draining"
            try:
                if self.id:
                    self._send("POST", f"/api/registry/deregister/{self.id}", self.credential(), {"reason": "stopping"}, 5)
            except (Problem, OSError, ValueError) as fault:
                log.warning("cannot deregister: %s", fault)
        time.sleep(self.linger_s)
        with self._idle:
            return self._idle.wait_for(lambda: self._in_flight == 0, self.drain_s)

    def _on_signal(self, number, frame):
        if self._stopped:
            before = self._chained.pop(number, None)  # A server's own handler, e.g. uvicorn's, ends it in its own way.
            if callable(before) and before is not signal.default_int_handler:
                return before(number, frame)
            raise SystemExit(0)
        if self._stop.is_set():
            os._exit(1)  # The second signal means now.
        def stop():
            self.drain()
            self._stopped = True
            os.kill(os.getpid(), number)  # The main thread is in somebody's serve loop; only a signal gets it out.
        self._stop.set()
        threading.Thread(target=stop, name="portico-drain", daemon=True).start()

    def credential(self):
        return (self.verifier.secrets or [self.token])[0]

    def enter(self, method, target, headers):
        """Checks one request. Returns what to answer at once, or None: then serve it and call leave() at its end."""
        path = target.partition("?")[0]
        _identity.set(None)
        if method in ("GET", "HEAD") and path == self.health_path:
            return _json(*((503, {"status": "draining"}) if self._stop.is_set() else (200, {"status": "ok"})))
        if method not in ("GET", "HEAD") or path not in self.unsigned:
            if not self.verifier.secrets:
                self._lock.acquire(timeout=2) and self._lock.release()  # The gateway may be faster than the registry's answer.
            try:
                _identity.set(self.verifier.verify(method, target, headers))
            except Refused as refused:
                log.warning("refused %s %s: %s", method, path, refused)
                return Problem(401, f"{self.name}.signature_invalid", "this service answers its gateway only").answer()
        with self._idle:
            self._in_flight += 1

    def leave(self):
        with self._idle:
            self._in_flight -= 1
            self._idle.notify_all()

    def call(self, service, path="/", method="GET", body=None, headers=None, timeout_s=30.0):
        """Calls a service through the gateway as this service, `body` as JSON. The answer's JSON or bytes, or Problem."""
        deadline = getattr(current(), "deadline", None)
        left = timeout_s if deadline is None else min(timeout_s, deadline - time.monotonic())
        if left <= 0.001:
            raise Problem(504, f"{self.name}.deadline_exceeded", "no time was left for this call")
        headers = {**(headers or {}), "X-Portico-Deadline-Ms": str(int(left * 1000))}
        where = urljoin(self.internal or self.url, f"/api/{quote(service, '@')}/{path.lstrip('/')}")
        return self._send(method, where, self.credential(), body, left, headers)

    def _send(self, method, path, credential, body, timeout_s, headers=None):
        """One request without proxies or redirects, which a credential must not follow; the document that came back."""
        where, data = urlsplit(urljoin(self.url, path)), None if body is None else json.dumps(body).encode()
        sent = {"X-Portico-Protocol": "1", "Content-Type": "application/json", **(headers or {}),
                **({"Authorization": f"Bearer {credential}"} if credential else {})}
        link = (HTTPSConnection if where.scheme == "https" else HTTPConnection)(where.netloc, timeout=timeout_s)
        try:
            link.request(method, where._replace(scheme="", netloc="").geturl(), data, sent)
            raw = (got := link.getresponse()).read(MAX_ANSWER + 1)
        except HTTPException as fault:
            raise Problem(502, f"{self.name}.answer_invalid", repr(fault)) from None
        finally:
            link.close()
        if len(raw) > MAX_ANSWER or got.status >= 300:
            raise Problem.read(got.status, raw)
        return json.loads(raw) if "json" in (got.headers["Content-Type"] or "") else raw

    def verify_statement(self, jwt, typ="pi+jwt", audience=None):
        """Claims of X-Portico-Identity (EdDSA, RFC 8037) by the gateway's JWKS; this one needs `cryptography`."""
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
        unbase64 = lambda text: base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True)
        try:
            head, claims, mac = jwt.split(".") if len(jwt) <= 8192 else ()
            header, doc, now = json.loads(unbase64(head)), json.loads(unbase64(claims)), time.time()
            if header["kid"] not in self._keys and time.monotonic() - self._keys_at > 30:
                self._keys_at, got = time.monotonic(), self._send("GET", self.identity["jwks_url"], None, None, 5)
                self._keys = {k["kid"]: unbase64(k["x"]) for k in got["keys"] if k.get("crv") == "Ed25519" and "kid" in k}
            Ed25519PublicKey.from_public_bytes(self._keys[header["kid"]]).verify(unbase64(mac), f"{head}.{claims}".encode())
            if (header["alg"] == "EdDSA" and header["typ"] == typ and not {"crit", "b64", "jku", "jwk", "x5u"} & set(header)
                    and (audience or self.name) in (doc["aud"] if isinstance(doc["aud"], list) else [doc["aud"]])
                    and doc["iss"] == self.identity["issuer"] and max(doc.get("nbf", 0), doc.get("iat", 0)) - 60 <= now < doc["exp"]):
                return doc
            raise ValueError("header, issuer, audience or time")
        except (InvalidSignature, Problem, OSError, ValueError, LookupError, TypeError, AttributeError) as fault:
            raise Refused(f"statement: {fault!r}") from None

def service(config, **options):
    """Decorator: puts a handler class, a WSGI or an ASGI application behind the checks and gives it `.portico`."""
    def wrap(target):
        plugin = Plugin(config, **options)
        if inspect.isclass(target) and issubclass(target, BaseHTTPRequestHandler):
            return _handler(target, plugin)
        if hasattr(target, "wsgi_app"):  # Flask
            target.wsgi_app = _wsgi(target.wsgi_app, plugin)
            target.register_error_handler(Problem, lambda p: (lambda s, h, b: (b, s, h))(*p.answer()))
        elif hasattr(target, "add_middleware"):  # FastAPI, Starlette
            target.add_middleware(_Asgi, plugin=plugin)
            plugin.take_signals()  # Before the server does: it restores these, and the exit code is 0.
        else:
            kinds = map(inspect.iscoroutinefunction, (target, getattr(target, "__call__", None)))
            target = (_Asgi if any(kinds) else _wsgi)(target, plugin)
        target.portico = plugin
        return target
    return wrap

def serve(handler, bind=None):
    """Runs a decorated handler class until a stop signal, then drains and exits with 0."""
    plugin = handler.portico
    host = bind or ("0.0.0.0" if plugin.config["host"] == "auto" else plugin.config["host"])
    ThreadingHTTPServer.request_queue_size = 128  # The default of 5 turns a burst into refused connections.
    server = ThreadingHTTPServer((host, plugin.config["port"]), handler)
    plugin.config["port"] = server.server_port
    plugin.start()
    server.serve_forever()

def _json(status, doc, kind="application/json"):
    body = json.dumps(doc).encode()
    return status, [("Content-Type", kind), ("Content-Length", str(len(body)))], body

def _handler(cls, plugin):
    def guarded(name):
        def run(self):
            early = plugin.enter(self.command, self.requestline.split()[1], self.headers.items())
            if early is None:
                try:
                    if not hasattr(cls, name):
                        raise Problem(405, f"{plugin.name}.method_not_allowed", f"{self.command} is not offered")
                    return getattr(cls, name)(self)
                except Problem as problem:
                    early = problem.answer()
                finally:
                    plugin.leave()
            status, headers, body = early
            self.send_response(status)
            for key, value in headers + [("Connection", "close")]:  # An unread body must not become the next request.
                self.send_header(key, value)
            self.end_headers()
            self.wfile.write(b"" if self.command == "HEAD" else body)
            with contextlib.suppress(OSError):  # Closing over a body that is still coming would reset the connection.
                self.connection.settimeout(1.0 if self.command not in ("GET", "HEAD") else 0.0)
                self.connection.shutdown(socket.SHUT_WR)
                self.rfile.read(256 * 1024)
        return run
    names = {"do_" + m for m in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")} | {n for n in dir(cls) if n[:3] == "do_"}
    settings = {"protocol_version": "HTTP/1.1", "timeout": 75, "disable_nagle_algorithm": True, "portico": plugin}
    return type(cls.__name__, (cls,), {**settings, **{name: guarded(name) for name in names}})

def _counted(parts, leave):  # A WSGI answer, in flight until the server closes it.
    try:
        yield b""  # Taken by the caller at once, so that close() always reaches the end.
        yield from parts
    finally:
        leave()
        getattr(parts, "close", lambda: None)()

def _wsgi(app, plugin):
    def wrapped(environ, start_response):
        path, query = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", ""), environ.get("QUERY_STRING")
        rebuilt = quote(path.encode("latin-1"), "/:@!$&'()*+,;=-._~") + (f"?{query}" if query else "")
        target = environ.get("REQUEST_URI") or environ.get("RAW_URI") or rebuilt  # Only the original is exact.
        headers = [(name[5:].replace("_", "-"), value) for name, value in environ.items() if name[:5] == "HTTP_"]
        early = plugin.enter(environ["REQUEST_METHOD"], target, headers)
        if early is None:
            try:
                body = _counted(app(environ, start_response), plugin.leave)
                next(body)
                return body
            except BaseException as fault:
                plugin.leave()
                if not isinstance(fault, Problem):
                    raise
                early = fault.answer()
        status, headers, body = early
        start_response(f"{status} Answer", headers)
        return [body]
    return wrapped

class _Asgi:
    def __init__(self, app, plugin):
        self.app, self.portico = app, plugin
    async def __call__(self, scope, receive, send):
        if scope["type"] == "lifespan":
            self.portico.start()
        if scope["type"] not in ("http", "websocket"):
            return await self.app(scope, receive, send)
        target, query = scope.get("raw_path") or quote(scope["path"]).encode(), scope.get("query_string")
        target = (target + b"?" + query if query else target).decode("latin-1")
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]
        early = self.portico.enter(scope.get("method", "GET"), target, headers)
        if early is None:
            try:
                return await self.app(scope, receive, send)
            except Problem as problem:
                early = problem.answer()
            finally:
                self.portico.leave()
        if scope["type"] == "websocket":
            return await send({"type": "websocket.close", "code": 1008})
        status, headers, body = early
        headers = [(name.lower().encode(), value.encode()) for name, value in headers]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})
