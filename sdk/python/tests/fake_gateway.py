"""A registry that records what a plug-in says to it, and a gateway that signs requests to the plug-in."""
import http.client
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "sdk" / "python"))
from portico_sdk import ORDER, sign, signature_base  # noqa: E402

PATIENCE_S = 20
NAMES = {name: "X-Portico-" + "-".join(part.capitalize() for part in name.split("-")) for name in ORDER}


class FakeGateway:
    """`script` maps "METHOD /path prefix" to a list of (status, document) that are answered once each, in order."""

    def __init__(self, heartbeat_s=30, **script):
        self.heartbeat_s, self.script = heartbeat_s, script
        self.calls, self.secrets = queue.Queue(), []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version, disable_nagle_algorithm = "HTTP/1.1", True

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or "null")
                outer.answer(self, body)

            do_GET = do_POST

            def log_message(self, *_):
                pass

        class Quiet(ThreadingHTTPServer):
            def handle_error(self, *_):  # Children that are killed reset their connections.
                pass

        self.server = Quiet(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()

    def answer(self, handler, body):
        verb = handler.path.split("/")[3] if handler.path.startswith("/api/registry/") else "other"
        scripted = self.script.get(verb)
        status, doc = scripted.pop(0) if scripted else self.usual(verb)
        if status == "hang up":
            handler.close_connection = True
            handler.connection.close()
            return
        doc = {k: v for k, v in doc.items() if v is not None}
        headers = doc.pop("headers", {})
        self.secrets += [s for s in (doc.get("instance_secret"), (doc.get("key_rotation") or {}).get("instance_secret")) if s]
        self.calls.put((verb, body, handler.path, {name.lower(): value for name, value in handler.headers.items()}))
        raw = json.dumps(doc).encode()
        handler.send_response(status)
        handler.send_header("Content-Type", "application/problem+json" if status >= 400 else "application/json")
        handler.send_header("Content-Length", str(len(raw)))
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(raw)

    def usual(self, verb):
        if verb == "register":
            return 201, {"id": "i-1", "service": "notes", "version": "1.0.0", "state": "ready", "heartbeat_s": self.heartbeat_s,
                         "instance_secret": "pis_first", "directory_seq": 7,
                         "identity": {"jwks_url": self.url + "/.well-known/jwks.json", "issuer": "urn:portico:test"}}
        if verb == "heartbeat":
            return 200, {"next_s": self.heartbeat_s, "drain": False, "directory_seq": 7}
        if verb == "deregister":
            return 200, {"state": "draining"}
        return 404, {"status": 404, "code": "gateway.service_not_found"}

    def next(self, verb):
        """The next call, which must be of this kind: (body, path, headers by lower-case name)."""
        kind, body, path, headers = self.calls.get(timeout=PATIENCE_S)
        assert kind == verb, f"expected {verb}, got {kind} {path} {body}"
        return body, path, headers


def signed(method, target, secret, now_ms=None, **values):
    """The headers that the gateway sets, as a list of pairs."""
    one = {name: values.get(name.replace("-", "_"), "") for name in ORDER}
    one["request-id"] = one["request-id"] or os.urandom(8).hex()
    stamp = int(time.time() * 1000) if now_ms is None else now_ms
    mac = sign(secret, signature_base(stamp, method, target, one))
    return [(NAMES[name], value) for name, value in one.items()] + [("X-Portico-Timestamp", str(stamp)), ("X-Portico-Signature", mac)]


def send(port, method, target, headers=(), body=None):
    """One request exactly as given: (status, headers, document)."""
    link = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
    try:
        link.putrequest(method, target, skip_host=any(name == "Host" for name, _ in headers), skip_accept_encoding=True)
        raw = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        for name, value in list(headers) + ([("Content-Length", str(len(raw)))] if raw is not None else []):
            link.putheader(name, value)
        link.endheaders(raw)
        got = link.getresponse()
        text = got.read()
        return got.status, got.headers, json.loads(text) if text else None
    finally:
        link.close()


class Child:
    """An example as a real process, in its own process group, killed at the end whatever happens."""

    def __init__(self, command, gateway, **env):
        clean = {k: v for k, v in os.environ.items() if not k.startswith("PORTICO_") and k != "PORT"}
        token = {} if "PORTICO_INSTANCE_SECRET" in env else {"PORTICO_TOKEN": "prt_test"}
        clean.update({"PORTICO_URL": gateway.url, **token, **env})
        loud = None if os.environ.get("NOTES_VERBOSE") else subprocess.DEVNULL
        self.process = subprocess.Popen(command, env=clean, cwd=ROOT, start_new_session=True, stdout=loud, stderr=loud)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def terminate(self):
        self.process.send_signal(signal.SIGTERM)

    def exit_code(self):
        return self.process.wait(PATIENCE_S)
