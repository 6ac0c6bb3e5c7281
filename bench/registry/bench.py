"""Registry figures: register → routed, register → watcher wakes, KV, heartbeats, idle watchers."""

import argparse
import http.client
import http.server
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import tempfile
import threading
import time


def percentile(values, p):
    values = sorted(values)
    return values[min(len(values) - 1, int(len(values) * p / 100))] * 1e3


def show(name, who, values):
    print(f"{name:34} {who:8} p50 {percentile(values, 50):7.2f} ms   p99 {percentile(values, 99):7.2f} ms   n {len(values)}")
    return {"row": name, "who": who, "p50_ms": percentile(values, 50), "p99_ms": percentile(values, 99)}


class Client:
    def __init__(self, port, headers=None):
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        self.connection.connect()
        self.connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.headers = headers or {}

    def call(self, method, path, body=None):
        data = json.dumps(body).encode() if isinstance(body, (dict, list)) else body
        self.connection.request(method, path, data, self.headers)
        response = self.connection.getresponse()
        return response.status, dict(response.headers), response.read()


def cpu_seconds(pid):
    total = 0.0
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/schedstat") as f:
            total += int(f.read().split()[0]) / 1e9
    return total


def rss_kb(pid):
    with open(f"/proc/{pid}/status") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("VmRSS:"))


class Portico:
    name = "portico"

    def __init__(self, folder):
        data = os.path.join(folder, "portico")
        argv = [os.environ["PORTICO_BIN"], "--data-dir", data, "--ready-json", "--no-demo"]
        for listener in ("--listen", "--consul-listen", "--admin-listen"):
            argv += [listener, "127.0.0.1:0"]
        with open(os.path.join(folder, "portico.toml"), "w") as f:
            f.write('[telemetry.log]\ntarget = "file"\n[settings]\n"gateway.access_log" = "off"\n')
        argv += ["--config", os.path.join(folder, "portico.toml")]
        self.process = subprocess.Popen(argv, stdout=subprocess.PIPE)
        ready = json.loads(self.process.stdout.readline())
        self.http = int(ready["http"].rsplit(":", 1)[1])
        self.port = int(ready["consul"].rsplit(":", 1)[1])
        with open(os.path.join(data, "operator.token")) as f:
            name, value = f.read().strip().split(": ", 1)
        self.auth = {name: value, "Content-Type": "application/json"}

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()


class Consul:
    name = "consul"

    def __init__(self, folder, binary):
        ports = []
        for _ in range(5):
            with socket.socket() as s:
                s.bind(("127.0.0.1", 0))
                ports.append(s.getsockname()[1])
        config = os.path.join(folder, "consul.json")
        names = ("http", "dns", "serf_lan", "serf_wan", "server")
        with open(config, "w") as f:
            json.dump({"ports": dict(zip(names, ports))}, f)
        argv = [binary, "agent", "-server", "-bootstrap", "-bind", "127.0.0.1", "-config-file", config, "-data-dir", os.path.join(folder, "consul")]
        self.process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.port = ports[0]
        end = time.monotonic() + 20
        while time.monotonic() < end:
            try:
                if Client(self.port).call("GET", "/v1/status/leader")[2] not in (b'""', b""):
                    return
            except OSError:
                pass
            time.sleep(0.05)
        raise SystemExit("consul has no leader")

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()


def wakes(server, rounds):
    """A blocked watcher of one service; the time from the registration's begin to the watcher's answer."""
    times, writer = [], Client(server.port)
    for i in range(rounds):
        name = f"wake-{i}"
        index = Client(server.port).call("GET", f"/v1/health/service/{name}")[1]["X-Consul-Index"]
        got = threading.Event()
        at = []

        def watch():
            Client(server.port).call("GET", f"/v1/health/service/{name}?index={index}&wait=10s")
            at.append(time.perf_counter())
            got.set()

        threading.Thread(target=watch, daemon=True).start()
        time.sleep(0.01)
        begin = time.perf_counter()
        writer.call("PUT", "/v1/agent/service/register", {"Name": name, "Port": 1000 + i % 60000})
        got.wait(10)
        times.append(at[0] - begin)
    return times


def kv(server, rounds):
    client = Client(server.port)
    put, get = [], []
    for i in range(rounds):
        begin = time.perf_counter()
        client.call("PUT", f"/v1/kv/bench/{i % 100}", os.urandom(100))
        put.append(time.perf_counter() - begin)
        begin = time.perf_counter()
        client.call("GET", f"/v1/kv/bench/{i % 100}")
        get.append(time.perf_counter() - begin)
    return put, get


def routed(server, rounds):
    """Register → the first request through the gateway that reaches the new instance."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"ok")

        def log_message(self, *_):
            pass

    upstream = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=upstream.serve_forever, daemon=True).start()
    writer, reader = Client(server.http, server.auth), Client(server.http)
    answered, whole, missed = [], [], 0
    for i in range(rounds):
        body = {"name": f"routed-{i}", "version": "1.0.0", "host": "127.0.0.1", "port": upstream.server_port, "default_access": "public"}
        begin = time.perf_counter()
        status, _, text = writer.call("POST", "/api/registry/register", body)
        if status != 201:
            raise SystemExit(f"register: {status} {text[:300]}")
        answered.append(time.perf_counter() - begin)
        while reader.call("GET", f"/api/routed-{i}/")[0] != 200:
            missed += 1
        whole.append(time.perf_counter() - begin)
    return answered, whole, missed


def heartbeats(server, instances, seconds):
    """CPU of instances that each beat every 30 s, at their real rate."""
    client = Client(server.http, server.auth)
    ids = []
    for i in range(instances):
        body = {"name": f"beat-{i // 500}", "version": "1.0.0", "host": "127.0.0.1", "port": 1 + i % 65000, "instance_key": str(i), "heartbeat_s": 30}
        status, _, text = client.call("POST", "/api/registry/register", body)
        if status != 201:
            raise SystemExit(f"register: {status} {text[:300]}")
        ids.append(json.loads(text)["id"])
    rate = instances / 30
    before, begin = cpu_seconds(server.process.pid), time.perf_counter()
    sent = 0
    while (passed := time.perf_counter() - begin) < seconds:
        while sent < passed * rate:
            status, _, text = client.call("POST", "/api/registry/heartbeat", {"service_id": ids[sent % instances]})
            if status != 200:
                raise SystemExit(f"heartbeat: {status} {text[:300]}")
            sent += 1
        time.sleep(0.002)
    return (cpu_seconds(server.process.pid) - before) / (time.perf_counter() - begin), sent


def idle_watchers(server, count):
    before = rss_kb(server.process.pid)
    sockets = []
    for i in range(count):
        s = socket.create_connection(("127.0.0.1", server.port))
        s.sendall(f"GET /v1/kv/idle-{i}?index=1&wait=60s HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        sockets.append(s)
    time.sleep(2)
    after = rss_kb(server.process.pid)
    for s in sockets:
        s.close()
    return (after - before) / 1024


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--instances", type=int, default=10_000)
    parser.add_argument("--seconds", type=int, default=15)
    args = parser.parse_args()
    folder = tempfile.mkdtemp(prefix="portico-bench-")
    servers = [Portico(folder)]
    binary = shutil.which("consul")
    if binary:
        servers.append(Consul(folder, binary))
    else:
        print("no consul is installed; its published figures: wake 9.67 / 53.7 ms, KV PUT 0.63 / 1.54 ms, GET 0.16 / 0.25 ms")
    results = []
    try:
        for server in servers:
            results.append(show("register → blocked watcher wakes", server.name, wakes(server, args.rounds)))
            put, get = kv(server, args.rounds * 3)
            results.append(show("KV PUT (durable)", server.name, put))
            results.append(show("KV GET", server.name, get))
            mb = idle_watchers(server, 1000)
            print(f"{'1,000 idle blocking queries':34} {server.name:8} {mb:7.1f} MB")
            results.append({"row": "idle_1000_mb", "who": server.name, "mb": mb})
        answered, whole, missed = routed(servers[0], args.rounds)
        results.append(show("register answered", "portico", answered))
        results.append(show("register → answered through gateway", "portico", whole))
        print(f"requests after an answered registration that were not routed: {missed}")
        share, sent = heartbeats(servers[0], args.instances, args.seconds)
        print(f"{args.instances} instances with 30 s heartbeats: {share * 100:.2f} % of one core ({sent} beats)")
        results.append({"row": "heartbeats_core_percent", "who": "portico", "percent": share * 100})
    finally:
        for server in servers:
            server.stop()
        shutil.rmtree(folder, ignore_errors=True)
    out = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "results", "registry.json")
    with open(out, "w") as f:
        json.dump(results, f, indent=1)


main()
