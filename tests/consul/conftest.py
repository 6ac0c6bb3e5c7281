"""Replaces py-consul's root conftest.py: every test gets a fresh, empty Portico instead of a container.

PORTICO_BINARY names the binary. Nothing else of the suite is changed.
"""

import collections
import json
import os
import subprocess
import tempfile
import threading

import pytest
import requests

ConsulInstance = collections.namedtuple("ConsulInstance", ["container", "port", "version"])


@pytest.fixture(scope="session", autouse=True)
def _unset_consul_token():
    os.environ.pop("CONSUL_HTTP_TOKEN", None)


class Portico:
    """One process with a data directory of its own."""

    def __init__(self, folder, configuration=""):
        self.folder = folder
        with open(os.path.join(folder, "portico.toml"), "w", encoding="utf-8") as file:
            file.write(configuration)
        self.process = subprocess.Popen(
            [
                os.environ["PORTICO_BINARY"],
                "--config", os.path.join(folder, "portico.toml"),
                "--data-dir", os.path.join(folder, "data"),
                "--listen", "127.0.0.1:0",
                "--consul-listen", "127.0.0.1:0",
                "--admin-listen", "127.0.0.1:0", "--grpc-listen", "127.0.0.1:0", "--internal-listen", "127.0.0.1:0",
                "--no-demo", "--ready-json", "--quiet",
            ],
            stdout=subprocess.PIPE,
            stderr=open(os.path.join(folder, "log"), "wb"),
        )
        self.port = None
        for line in self.process.stdout:
            try:
                ready = json.loads(line)
            except ValueError:
                continue
            if "consul" in ready:
                self.port = int(ready["consul"].rsplit(":", 1)[1])
                self.http = ready["http"]
                break
        if self.port is None:
            with open(os.path.join(folder, "log"), encoding="utf-8") as log:
                raise RuntimeError("Portico did not start: " + log.read()[-4000:])
        # Nobody reads what follows; a full pipe must not stop the process.
        threading.Thread(target=self.process.stdout.read, daemon=True).start()

    def token(self):
        """The operator's token: what the initial management token is to Consul."""
        with open(os.path.join(self.folder, "data", "operator.token"), encoding="utf-8") as file:
            return file.read().split()[-1]

    def stop(self):
        self.process.kill()
        self.process.wait()


def start(configuration=""):
    folder = tempfile.TemporaryDirectory(prefix="portico-consul-")
    return folder, Portico(folder.name, configuration)


def version_of(portico, token=None):
    headers = {"X-Consul-Token": token} if token else {}
    answer = requests.get(f"http://127.0.0.1:{portico.port}/v1/agent/self", headers=headers, timeout=10)
    return answer.json()["Config"]["Version"].strip()


@pytest.fixture
def consul_instance():
    folder, portico = start()
    try:
        yield ConsulInstance(portico, portico.port, version_of(portico))
    finally:
        portico.stop()
        folder.cleanup()


@pytest.fixture
def acl_consul_instance():
    folder, portico = start('[settings]\n"registry.anonymous" = "off"\n')
    try:
        token = portico.token()
        yield ConsulInstance(portico, portico.port, version_of(portico, token)), token
    finally:
        portico.stop()
        folder.cleanup()


@pytest.fixture
def consul_port(consul_instance):
    return consul_instance.port, consul_instance.version
