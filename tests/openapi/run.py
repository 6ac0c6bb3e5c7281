"""schemathesis over every operation of our OpenAPI document, as three callers.

What counts as a failure: a 5xx, a status or content type or body that the document does not have, bad input that
is taken, a method that is taken though it is not there, a route that opens without the credential it asks for.
Examples are bounded and seeded, so that two runs send the same requests.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
import urllib.request

CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,"
    "negative_data_rejection,unsupported_method,ignored_auth"
)
PASSWORD = "quartz lantern 88 ferry"
WIDE = '["1000000/min"]'
CONFIG = f"""
[node]
dev = true
demo = false
[listen]
http = "127.0.0.1:0"
consul = "127.0.0.1:0"
admin = "127.0.0.1:0"
grpc = "127.0.0.1:0"
internal = "127.0.0.1:0"
[settings]
"identity.password.argon2" = {{ m_kib = 7168, t = 1, p = 1 }}
"identity.limit.password_per_address" = {WIDE}
"identity.limit.registration_per_address" = {WIDE}
"identity.limit.otp_per_address" = {WIDE}
"identity.limit.reset_per_address" = {WIDE}
"identity.limit.refresh_invalid_per_address" = {WIDE}
"identity.limit.username_per_address" = {WIDE}
"""
# Streams and long polls answer when something happens; they have tests of their own.
STREAMS = "^/api/(gateway/live|registry/watch|settings/(watch|stream))$"
# What would end the caller before its turn is over.
FATAL = {
    "user": "^/api/identity/(logout|me/delete)$",
    "operator": "^/api/identity/(keys/rotate|epoch/raise)$",
}


def call(method, url, body=None, token=None):
    """An answer of the house as JSON."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, method=method)
    request.add_header("content-type", "application/json")
    if token:
        request.add_header("authorization", f"Bearer {token}")
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.loads(answer.read() or b"null")


class House:
    """The real binary on a folder of its own."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        (self.folder / "portico.toml").write_text(CONFIG)
        self.log = open(self.folder / "log", "w+")
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PORTICO_")}
        self.process = subprocess.Popen(
            [os.environ["PORTICO_BINARY"], "--ready-json", "--data-dir", str(self.folder / "data")],
            cwd=folder, env=environment, stdout=self.log, stderr=subprocess.STDOUT,
        )
        end = time.monotonic() + 60
        while not (ready := self.ready()):
            if self.process.poll() is not None or time.monotonic() > end:
                sys.exit("the house did not start:\n" + self.said()[-4000:])
            time.sleep(0.05)
        self.url = ready["http"]
        line = (self.folder / "data/operator.token").read_text().strip()
        self.operator = line.rsplit(" ", 1)[-1]

    def said(self):
        """Everything in its log."""
        return (self.folder / "log").read_text(errors="replace")

    def ready(self):
        """Its ready line, once it is there."""
        for line in self.said().splitlines():
            if '"event":"ready"' in line.replace(" ", ""):
                return json.loads(line)
        return None

    def user(self):
        """Access token of a new user without any right."""
        body = {"method": "username", "identifier": "ordinary", "password": PASSWORD,
                "device": {"platform": "cli"}}
        made = call("POST", f"{self.url}/api/identity/register", body)
        return made["tokens"]["access_token"]

    def stop(self):
        """Ends it; its exit code."""
        self.process.terminate()
        return self.process.wait(timeout=60)


def run(house, document, who, token, options):
    """One caller over the whole document; true when nothing was found."""
    command = [
        sys.executable, "-m", "schemathesis.cli", "run", str(document), "--url", house.url,
        "--checks", CHECKS, "--phases", options.phases, "--max-examples", str(options.examples),
        "--seed", "3", "--generation-deterministic", "--no-shrink",
        "--workers", "2", "--request-timeout", "30", "--continue-on-failure", "--warnings", "off",
        "--exclude-path-regex", STREAMS if who not in FATAL else f"{STREAMS}|{FATAL[who]}",
        "--suppress-health-check", "all",
    ]
    if options.only:
        command += ["--include-path-regex", options.only]
    if token:
        command += ["--header", f"Authorization: Bearer {token}"]
    began = time.monotonic()
    done = subprocess.run(command, cwd=house.folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    good = done.returncode == 0
    print(f"OpenAPI as {who}: {'good' if good else 'FAULTS'}, {time.monotonic() - began:.0f} s")
    if not good or options.verbose:
        print(done.stdout)
    return good


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=4, help="generated requests an operation and caller")
    parser.add_argument("--phases", default="examples,coverage,fuzzing")
    parser.add_argument("--as", dest="callers", default="nobody,user,operator")
    parser.add_argument("--only", help="paths that fit this expression")
    parser.add_argument("--verbose", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        house = House(folder)
        try:
            document = pathlib.Path(folder) / "openapi.json"
            text = call("GET", f"{house.url}/openapi.json", token=house.operator)
            document.write_text(json.dumps(text))
            callers = {"nobody": lambda: None, "user": house.user, "operator": lambda: house.operator}
            wanted = options.callers.split(",")
            # A list, so that one caller's faults do not hide the next one's.
            good = all([run(house, document, who, callers[who](), options) for who in wanted])
        finally:
            code = house.stop()
        panics = [line for line in house.said().splitlines() if "panicked" in line]
        if code != 0 or panics:
            sys.exit(f"the house ended with {code}: {panics[:5]}")
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
