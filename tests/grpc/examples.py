"""The Python examples of gRPC against the real binary, with stubs generated from proto/ as a stranger would."""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.request

import grpc
from interop import house

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
EXAMPLES = os.path.join(ROOT, "examples", "grpc")
PATIENCE_S = 20
bad = 0


def check(what, right, seen=""):
    global bad
    bad += not right
    print(f"{'ok  ' if right else 'FAIL'} {what}" + ("" if right else f": {seen}"))


def post(url, path, body, token=None):
    headers = {"Content-Type": "application/json"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    request = urllib.request.Request(f"{url}{path}", json.dumps(body).encode(), headers, method="POST")
    with urllib.request.urlopen(request, timeout=10) as answer:
        text = answer.read()
        return json.loads(text) if text else None


def generate(folder):
    subprocess.run(
        [sys.executable, "-m", "grpc_tools.protoc", f"-I{ROOT}/proto", f"-I{EXAMPLES}", f"--python_out={folder}",
         f"--grpc_python_out={folder}", "portico/identity/v1/auth.proto", "greeter.proto"],
        check=True,
    )  # fmt: skip


def lines_until(process, pattern):
    """Reads what a process prints until a line matches."""
    seen = []
    end = time.monotonic() + PATIENCE_S
    for line in process.stdout:
        seen.append(line.strip())
        if re.search(pattern, line):
            return line.strip()
        if time.monotonic() > end:
            break
    sys.exit(f"no line {pattern} in {seen}")


def health(channel, service):
    """grpc.health.v1 by hand: a message with the service's name, an answer with a number."""
    call = channel.unary_unary("/grpc.health.v1.Health/Check")
    name = service.encode()
    answer = call(b"\x0a" + bytes([len(name)]) + name, timeout=5)
    return answer == b"\x08\x01"


def main():
    with tempfile.TemporaryDirectory() as folder:
        generate(folder)
        process, url = house(folder)
        with open(os.path.join(folder, "data", "ready.json")) as f:
            ready = json.load(f)
        with open(os.path.join(folder, "data", "operator.token")) as f:
            operator = f.read().strip().removeprefix("Authorization: Bearer ")
        address = ready["grpc"].removeprefix("http://")
        environment = os.environ | {"PYTHONPATH": folder, "PORTICO_GRPC": address, "PORTICO_TOKEN": operator, "PORT": "0"}

        def example(*arguments, **more):
            return subprocess.Popen([sys.executable, os.path.join(EXAMPLES, arguments[0]), *arguments[1:]], env=environment,
                                    stdout=subprocess.PIPE, text=True, **more)  # fmt: skip

        def said(*arguments):
            running = example(*arguments)
            text, _ = running.communicate(timeout=PATIENCE_S)
            return running.returncode, text.strip()

        greeter = watcher = None
        try:
            account = {"method": "username", "identifier": "anna", "password": "correct-Horse-9-battery", "device": {"platform": "cli"}}
            tokens = post(url, "/api/identity/register", account)["tokens"]
            token = tokens["access_token"]
            code, text = said("auth.py", "verify", token)
            check("a token is verified", code == 0 and text.startswith("user ") and "roles user" in text, text)
            code, text = said("auth.py", "verify", "nonsense")
            check("a bad one is an answer", (code, text) == (1, "not good: identity.token_invalid"), text)
            greeter = example("greeter.py")
            port = int(greeter.stdout.readline())
            body = {"name": "greeter", "version": "1.0.0", "host": "127.0.0.1", "port": port, "protocol": "h2c",
                    "default_access": "public", "forward_credentials": True}  # fmt: skip
            post(url, "/api/registry/register", body, operator)
            for name, target, prefix in (("directly", f"127.0.0.1:{port}", ""), ("through the door", url.removeprefix("http://"), "/api/greeter")):
                with grpc.insecure_channel(target) as channel:
                    hello = channel.unary_unary(f"{prefix}/greeter.v1.Greeter/Hello")
                    answer = hello(b"", metadata=[("authorization", f"Bearer {token}")], timeout=10)
                    check(f"the greeter knows who calls {name}", b"hello user " in answer, answer)
            watcher = example("auth.py", "watch")
            lines_until(watcher, "snapshot_end")
            code, text = said("auth.py", "revoke", token)
            check("a session is revoked", (code, text) == (0, "revoked"), text)
            line = lines_until(watcher, tokens["session_id"])
            check("and watchers hear of it", " session " in f" {line} ", line)
            code, text = said("auth.py", "verify", token)
            check("it is over", (code, text) == (1, "not good: identity.session_revoked"), text)
            with grpc.insecure_channel(address) as channel:
                check("health tells the process", health(channel, ""))
                check("health tells the service", health(channel, "portico.identity.v1.AuthService"))
                try:
                    channel.unary_unary("/portico.identity.v1.AuthService/VerifyToken")(b"", timeout=5)
                    check("nobody is refused", False)
                except grpc.RpcError as error:
                    told = dict(error.trailing_metadata() or []) | dict(error.initial_metadata() or [])
                    right = error.code() == grpc.StatusCode.UNAUTHENTICATED and "x-request-id" in told
                    check("nobody is refused", right, (error.code(), told))
        finally:
            process.terminate()
            clean = process.wait(40) == 0
            for running in (greeter, watcher):
                if running:
                    running.terminate()
                    running.wait(10)
        check("the stop is a clean one with a stream open", clean)
    print(f"gRPC examples with grpcio {grpc.__version__}: {bad} failed")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
