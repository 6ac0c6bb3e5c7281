"""GW-48 and PL-9: what a slow, a failing and a bad instance cost the requests that need not meet them."""

import argparse
import asyncio
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
import urllib.request

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
QUICK, SLOW = 0.02, 0.2


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=15, help="of each measurement")
    parser.add_argument("--rate", type=int, default=300, help="requests a second, open loop")
    parser.add_argument("--rounds", type=int, default=2)
    return parser.parse_args()


async def instance(name, delay, status):
    """A server that takes `delay` for each answer, any number at a time."""

    async def serve(reader, writer):
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                await asyncio.sleep(delay)
                writer.write(f"HTTP/1.1 {status} X\r\nX-Name: {name}\r\nContent-Length: 2\r\n\r\nok".encode())
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, backlog=1024)
    return server.sockets[0].getsockname()[1]


async def hanging():
    async def serve(reader, writer):
        await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    return server.sockets[0].getsockname()[1]


async def instances(pipe):
    ports = {f"quick-{n}": await instance(f"quick-{n}", QUICK, 200) for n in range(5)}
    ports["slow"] = await instance("slow", SLOW, 200)
    ports["failing"] = await instance("failing", 0.0001, 500)
    ports["hanging"] = await hanging()
    pipe.send(ports)
    await asyncio.Event().wait()


def in_process(pipe):
    asyncio.run(instances(pipe))


class Clients:
    """An open loop: each request has its time, whether those before it were answered or not."""

    def __init__(self, address, path):
        self.address, self.path = address, path
        self.idle, self.latencies, self.names, self.bad = [], [], [], 0

    async def one(self, due):
        pair = self.idle.pop() if self.idle else None
        try:
            reader, writer = pair or await asyncio.open_connection(*self.address)
            writer.write(f"GET {self.path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
            await reader.readexactly(int(head.split("content-length:")[1].split("\r\n")[0]))
        except (OSError, asyncio.IncompleteReadError, IndexError):
            self.bad += 1
            return
        self.latencies.append(time.monotonic() - due)
        self.names.append(head.split("x-name: ")[1].split("\r\n")[0] if "x-name: " in head else "none")
        self.bad += " 200 " not in head.split("\r\n")[0] + " "
        self.idle.append((reader, writer))

    async def run(self, seconds, rate):
        begun, tasks = time.monotonic(), []
        for n in range(int(seconds * rate)):
            due = begun + n / rate
            await asyncio.sleep(max(0, due - time.monotonic()))
            tasks.append(asyncio.create_task(self.one(due)))
        await asyncio.wait(tasks, timeout=60)
        for _, writer in self.idle:
            writer.close()

    def quantile(self, q):
        ordered = sorted(self.latencies)
        return 1000 * ordered[min(len(ordered) - 1, int(q * len(ordered)))]


def measure(address, path, args):
    clients = Clients(address, path)
    asyncio.run(clients.run(args.seconds, args.rate))
    return clients


def free_port():
    import socket

    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Lab:
    def __init__(self, folder):
        self.folder, self.children, self.own = folder, [], None

    def start(self, command):
        child = subprocess.Popen(command, cwd=self.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.children.append(child)

    def portico(self):
        given = [os.environ.get("PORTICO_BIN"), *(os.path.join(ROOT, "target", p, "portico") for p in ("dist", "quick", "debug"))]
        binary = next((path for path in given if path and os.path.exists(path)), None)
        if binary is None:
            sys.exit("no binary: build one, or say PORTICO_BIN")
        flags = ["--ready-json", "--no-demo", "--data-dir", os.path.join(self.folder, "data")]
        for name in ("listen", "consul-listen", "admin-listen", "grpc-listen", "internal-listen"):
            flags += [f"--{name}", "127.0.0.1:0"]
        self.own = subprocess.Popen([binary, "serve", *flags], cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.children.append(self.own)
        for line in self.own.stdout:
            if '"event":"ready"' in line:
                self.http = json.loads(line)["http"]
                break
        multiprocessing.Process(target=drain, args=(self.own.stdout,), daemon=True).start()
        with open(os.path.join(self.folder, "data", "operator.token")) as f:
            self.token = f.read().strip().removeprefix("Authorization: ")

    def register(self, service, port, key):
        body = {"name": service, "version": "1.0.0", "host": "127.0.0.1", "port": port, "instance_key": key, "default_access": "public"}
        headers = {"Authorization": self.token, "Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.http}/api/registry/register", json.dumps(body).encode(), headers, method="POST")
        urllib.request.urlopen(request, timeout=10).read()

    def nginx(self, groups):
        port = free_port()
        lines = ["daemon off; worker_processes 1; pid nginx.pid; error_log /dev/null;", "events { worker_connections 4096; }", "http { access_log off;"]
        for name, (policy, ports) in groups.items():
            servers = "".join(f"server 127.0.0.1:{p};" for p in ports)
            lines.append(f"upstream {name} {{ {policy} {servers} keepalive 64; }}")
        lines.append(f"server {{ listen 127.0.0.1:{port};")
        for name in groups:
            lines.append(f"location /{name} {{ proxy_pass http://{name}; proxy_http_version 1.1; proxy_set_header Connection ''; }}")
        lines.append("}}")
        with open(os.path.join(self.folder, "nginx.conf"), "w") as f:
            f.write("\n".join(lines))
        self.start(["nginx", "-p", self.folder, "-c", "nginx.conf"])
        return ("127.0.0.1", port)

    def haproxy(self, groups):
        port = free_port()
        lines = ["global", " maxconn 4096", "defaults", " mode http", " timeout connect 2s", " timeout client 60s", " timeout server 60s"]
        lines += ["frontend all", f" bind 127.0.0.1:{port}"]
        lines += [f" use_backend {name} if {{ path_beg /{name} }}" for name in groups]
        for name, ports in groups.items():
            lines += [f"backend {name}", " balance leastconn", " http-reuse always"]
            lines += [f" server s{n} 127.0.0.1:{p}" for n, p in enumerate(ports)]
        with open(os.path.join(self.folder, "haproxy.cfg"), "w") as f:
            f.write("\n".join(lines) + "\n")
        self.start(["haproxy", "-f", "haproxy.cfg"])
        return ("127.0.0.1", port)

    def close(self):
        for child in self.children:
            child.terminate()
        for child in self.children:
            child.wait(40)


def drain(stream):
    for _ in stream:
        pass


def address_of(url):
    host, port = url.removeprefix("http://").rsplit(":", 1)
    return host, int(port)


def main():
    args = arguments()
    ours, theirs = multiprocessing.Pipe()
    backends = multiprocessing.Process(target=in_process, args=(theirs,), daemon=True)
    backends.start()
    ports = ours.recv()
    quick = [ports[f"quick-{n}"] for n in range(5)]
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        lab = Lab(folder)
        try:
            run(lab, ports, quick, args)
        finally:
            lab.close()
            backends.terminate()


def run(lab, ports, quick, args):
    lab.portico()
    groups = {"healthy": quick, "slow": quick[:4] + [ports["slow"]], "failing": quick[:4] + [ports["failing"]]}
    for name, members in groups.items():
        for n, port in enumerate(members):
            lab.register(f"{name}-pool", port, str(n))
    lab.register("bystander", quick[4], "0")
    lab.register("hanging", ports["hanging"], "0")
    own = address_of(lab.http)
    peers = {
        "portico adaptive": (own, lambda g: f"/api/{g}-pool/"),
        "nginx least_conn": (lab.nginx({g: ("least_conn;", m) for g, m in groups.items()}), lambda g: f"/{g}"),
        "haproxy leastconn": (lab.haproxy(groups), lambda g: f"/{g}"),
    }
    time.sleep(1)
    results = {}
    for _ in range(args.rounds):
        for peer, (address, path) in peers.items():
            for group in groups:
                measured = measure(address, path(group), args)
                results.setdefault((peer, group), []).append(measured)
    print(f"one of five instances at {SLOW * 1000:.0f} ms instead of {QUICK * 1000:.0f}, or failing at once; {args.rate}/s, open loop")
    print(f"{'':20} {'pool':8} {'p50 ms':>8} {'p99 ms':>8} {'÷ healthy':>10} {'share of the odd one':>21} {'bad':>6}")
    for peer in peers:
        healthy = None
        for group in groups:
            runs = results[(peer, group)]
            p50, p99 = (sum(r.quantile(q) for r in runs) / len(runs) for q in (0.5, 0.99))
            healthy = healthy or p99
            total = sum(len(r.names) for r in runs)
            share = sum(r.names.count(group) for r in runs) / total
            print(f"{peer:20} {group:8} {p50:8.1f} {p99:8.1f} {p99 / healthy:10.2f} {100 * share:20.1f}% {sum(r.bad for r in runs):6}")
    bystander(own, args)


def bystander(own, args):
    """A good service alone, and while another hangs under load; interleaved."""

    async def both(with_load):
        good, bad = Clients(own, "/api/bystander/"), Clients(own, "/api/hanging/")
        load = asyncio.create_task(bad.run(args.seconds, 50)) if with_load else None
        await good.run(args.seconds, args.rate)
        if load:
            load.cancel()
        return good

    rows = {False: [], True: []}
    for _ in range(args.rounds * 2):
        for with_load in rows:
            rows[with_load].append(asyncio.run(both(with_load)))
    alone, beside = (sorted(r.quantile(0.99) for r in rows[k])[len(rows[k]) // 2] for k in (False, True))
    bad = sum(r.bad for runs in rows.values() for r in runs)
    print(f"\nPL-9: p99 of a good service alone {alone:.1f} ms, beside a hanging one under 50/s {beside:.1f} ms ({100 * (beside / alone - 1):+.1f} %), {bad} failed")


if __name__ == "__main__":
    main()
