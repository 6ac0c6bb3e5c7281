"""The programs under test: Portico, and Consul where it is installed (CONSUL_BIN or the PATH)."""

import http.client
import json
import os
import signal
import socket
import subprocess
import time


class Client:
    """One keep-alive connection."""

    def __init__(self, port, headers=None):
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        self.connection.connect()
        self.connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.headers = headers or {}

    def call(self, method, path, body=None):
        data = json.dumps(body).encode() if isinstance(body, (dict, list)) else body
        self.connection.request(method, path, data, self.headers)
        response = self.connection.getresponse()
        headers = {name.lower(): value for name, value in response.headers.items()}
        return response.status, headers, response.read()


class Server:
    """A running program and what it uses."""

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()

    def cpu_seconds(self):
        total, tasks = 0.0, f"/proc/{self.process.pid}/task"
        for task in os.listdir(tasks):
            try:
                with open(f"{tasks}/{task}/schedstat") as f:
                    total += int(f.read().split()[0]) / 1e9
            except FileNotFoundError:
                pass
        return total

    def rss_mb(self):
        with open(f"/proc/{self.process.pid}/status") as f:
            return next(int(line.split()[1]) for line in f if line.startswith("VmRSS:")) / 1024


class Portico(Server):
    name = "portico"

    def __init__(self, folder):
        data = os.path.join(folder, "portico")
        config = os.path.join(folder, "portico.toml")
        with open(config, "w") as f:
            f.write('[telemetry.log]\ntarget = "file"\n[settings]\n"gateway.access_log" = "off"\n')
        argv = [os.environ["PORTICO_BIN"], "--data-dir", data, "--ready-json", "--no-demo", "--config", config]
        for listener in ("--listen", "--consul-listen", "--admin-listen", "--grpc-listen", "--internal-listen"):
            argv += [listener, "127.0.0.1:0"]
        self.process = subprocess.Popen(argv, stdout=subprocess.PIPE)
        ready = json.loads(self.process.stdout.readline())
        self.http = int(ready["http"].rsplit(":", 1)[1])
        self.port = int(ready["consul"].rsplit(":", 1)[1])
        with open(os.path.join(data, "operator.token")) as f:
            name, value = f.read().strip().split(": ", 1)
        self.auth = {name: value, "Content-Type": "application/json"}


class Consul(Server):
    name = "consul"

    def __init__(self, folder, binary):
        ports = []
        for _ in range(5):
            with socket.socket() as s:
                s.bind(("127.0.0.1", 0))
                ports.append(s.getsockname()[1])
        config = os.path.join(folder, "consul.json")
        names = ("http", "dns", "serf_lan", "serf_wan", "server")
        # Its own limit of 200 connections an address would end the memory row early.
        settings = {"ports": dict(zip(names, ports)), "limits": {"http_max_conns_per_client": 5_000}}
        with open(config, "w") as f:
            json.dump(settings, f)
        argv = [binary, "agent", "-server", "-bootstrap", "-bind", "127.0.0.1", "-config-file", config]
        argv += ["-data-dir", os.path.join(folder, "consul")]
        self.process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.port = ports[0]
        end = time.monotonic() + 30
        while time.monotonic() < end:
            try:
                if Client(self.port).call("GET", "/v1/status/leader")[2] not in (b'""', b""):
                    return
            except OSError:
                pass
            time.sleep(0.05)
        raise SystemExit("consul has no leader")
