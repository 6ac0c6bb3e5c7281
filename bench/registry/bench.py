"""Registry figures beside a real Consul where one is installed: routing, wake-ups, keys, heartbeats, memory."""

import argparse
import http.server
import json
import os
import resource
import select
import shutil
import socket
import tempfile
import threading
import time

from servers import Client, Consul, Portico


def percentile(values, p):
    values = sorted(values)
    return values[min(len(values) - 1, int(len(values) * p / 100))] * 1e3


def times(row, who, values):
    print(f"{row:46} {who:8} p50 {percentile(values, 50):7.2f} ms   p99 {percentile(values, 99):7.2f} ms   n {len(values)}", flush=True)
    return {"row": row, "who": who, "p50_ms": percentile(values, 50), "p99_ms": percentile(values, 99), "n": len(values)}


def figure(row, who, value, unit):
    print(f"{row:46} {who:8} {value:9.2f} {unit}", flush=True)
    return {"row": row, "who": who, "value": value, "unit": unit}


def disk_floor(folder, rounds):
    """What one durable write costs at least: four KiB behind a file's end, and fdatasync."""
    out, block = [], os.urandom(4096)
    with open(os.path.join(folder, "floor"), "wb", buffering=0) as f:
        for _ in range(rounds):
            begin = time.perf_counter()
            f.write(block)
            os.fdatasync(f.fileno())
            out.append(time.perf_counter() - begin)
    return out


class Watch:
    """A blocking query on a connection of its own, without a thread."""

    def __init__(self, port, path):
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())

    def answered(self):
        """The moment of the answer's first bytes."""
        if not select.select([self.socket], [], [], 10)[0]:
            raise SystemExit("a watcher was not woken")
        at = time.perf_counter()
        self.socket.recv(65536)
        self.socket.close()
        return at


def wakes(server, rounds):
    """From the beginning of a registration to the answer of a watcher of that service."""
    out, writer = [], Client(server.port)
    for i in range(rounds):
        path = f"/v1/health/service/wake-{i}"
        index = writer.call("GET", path)[1]["x-consul-index"]
        watch = Watch(server.port, f"{path}?index={index}&wait=30s")
        time.sleep(0.01)
        begin = time.perf_counter()
        writer.call("PUT", "/v1/agent/service/register", {"Name": f"wake-{i}", "Port": 1000 + i % 60000})
        out.append(watch.answered() - begin)
    return out


def kv_wakes(server, rounds):
    """From the beginning of a durable PUT to the answer of a watcher of the key."""
    out, writer = [], Client(server.port)
    for i in range(rounds):
        writer.call("PUT", f"/v1/kv/watched/{i}", b"a")
        index = writer.call("GET", f"/v1/kv/watched/{i}")[1]["x-consul-index"]
        watch = Watch(server.port, f"/v1/kv/watched/{i}?index={index}&wait=30s")
        time.sleep(0.01)
        begin = time.perf_counter()
        writer.call("PUT", f"/v1/kv/watched/{i}", b"b")
        out.append(watch.answered() - begin)
    return out


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


def idle_queries(server, count):
    """Memory of blocking queries that wait, each on a connection of its own."""
    warm = Client(server.port)
    index = warm.call("GET", "/v1/kv/idle")[1]["x-consul-index"]
    before = server.rss_mb()
    watches = [Watch(server.port, f"/v1/kv/idle-{i}?index={index}&wait=300s") for i in range(count)]
    time.sleep(2)
    readable = select.poll()
    for watch in watches:
        readable.register(watch.socket, select.POLLIN)
    answered = len(readable.poll(0))
    if answered:
        raise SystemExit(f"{server.name}: {answered} of {count} queries do not wait")
    after = server.rss_mb()
    for watch in watches:
        watch.socket.close()
    return after - before


class Upstream(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *_):
        pass


def until(reader, path, wanted):
    """Asks until the status is as wanted; how many answers were not."""
    missed = 0
    while (reader.call("GET", path)[0] == 200) != wanted:
        missed += 1
    return missed


def routed(server, rounds):
    """Register → the gateway routes to it; drain and deregister → it does not any more."""
    upstream = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Upstream)
    threading.Thread(target=upstream.serve_forever, daemon=True).start()
    writer, reader = Client(server.http, server.auth), Client(server.http)
    rows = {"register answered": [], "register → routed": [], "drain → not routed": [], "deregister now → not routed": []}
    missed = 0
    for i in range(rounds):
        body = {"name": f"routed-{i % 50}", "version": "1.0.0", "host": "127.0.0.1", "port": upstream.server_port, "default_access": "public"}
        path = f"/api/routed-{i % 50}/"
        begin = time.perf_counter()
        status, _, text = writer.call("POST", "/api/registry/register", body)
        if status not in (200, 201):
            raise SystemExit(f"register: {status} {text[:300]}")
        rows["register answered"].append(time.perf_counter() - begin)
        missed += until(reader, path, True)
        rows["register → routed"].append(time.perf_counter() - begin)
        now = i % 2 == 0
        begin = time.perf_counter()
        status, _, text = writer.call("DELETE", f"/api/registry/services/{json.loads(text)['id']}" + ("?now=true" if now else ""))
        if status not in (200, 202, 204):
            raise SystemExit(f"deregister: {status} {text[:300]}")
        missed += until(reader, path, False)
        rows["deregister now → not routed" if now else "drain → not routed"].append(time.perf_counter() - begin)
    upstream.shutdown()
    return rows, missed


def heartbeats(server, instances, seconds):
    """Instances of 1,000 services, 20 endpoints each: their memory, and the CPU of a beat every 30 s."""
    client = Client(server.http, server.auth)
    before, ids = server.rss_mb(), []
    endpoints = [{"method": "GET", "path": f"/things-{n}/{{id}}", "is_public": True} for n in range(20)]
    for i in range(instances):
        body = {"name": f"beat-{i % 1000}", "version": "1.0.0", "host": "127.0.0.1", "port": 1 + i % 65000, "instance_key": str(i), "heartbeat_s": 30, "endpoints": endpoints}
        status, _, text = client.call("POST", "/api/registry/register", body)
        if status != 201:
            raise SystemExit(f"register: {status} {text[:300]}")
        ids.append(json.loads(text)["id"])
    memory = server.rss_mb() - before

    def beat(number):
        status, _, text = client.call("POST", "/api/registry/heartbeat", {"service_id": ids[number % instances]})
        if status != 200:
            raise SystemExit(f"heartbeat: {status} {text[:300]}")

    time.sleep(1)
    quiet, begin = server.cpu_seconds(), time.perf_counter()
    time.sleep(5)
    idle = (server.cpu_seconds() - quiet) / (time.perf_counter() - begin)
    rate = instances / 30
    before, begin, sent = server.cpu_seconds(), time.perf_counter(), 0
    while (passed := time.perf_counter() - begin) < seconds:
        while sent < passed * rate:
            beat(sent)
            sent += 1
        time.sleep(0.002)
    share = (server.cpu_seconds() - before) / (time.perf_counter() - begin)
    before = server.cpu_seconds()
    for number in range(sent):
        beat(number)
    return memory, share, idle, (server.cpu_seconds() - before) / sent


def watchers(server, count):
    """Memory of idle watchers (server-sent events through the gateway), and one change told to all."""
    writer = Client(server.http, server.auth)
    body = {"name": "watched", "version": "1.0.0", "host": "127.0.0.1", "port": 9, "instance_key": "watched"}
    writer.call("POST", "/api/registry/register", body)
    head = "".join(f"{name}: {value}\r\n" for name, value in server.auth.items())
    request = f"GET /api/registry/watch HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/event-stream\r\n{head}\r\n".encode()
    before = server.rss_mb()
    sockets, poll = {}, select.epoll()
    for _ in range(count):
        s = socket.create_connection(("127.0.0.1", server.http))
        s.sendall(request)
        if not s.recv(4096).startswith(b"HTTP/1.1 200"):
            raise SystemExit("a watcher was refused")
        s.setblocking(False)
        sockets[s.fileno()] = s
        poll.register(s.fileno(), select.EPOLLIN)
    time.sleep(3)
    used = server.rss_mb() - before
    all_told = []
    for port in range(10, 15):
        for fd, _ in poll.poll(0, count):
            sockets[fd].recv(65536)  # comments that keep the streams alive
        cpu, begin = server.cpu_seconds(), time.perf_counter()
        writer.connection.request("POST", "/api/registry/register", json.dumps({**body, "port": port}), server.auth)
        told = set()
        while len(told) < count:
            for fd, _ in poll.poll(10, count):
                if b"registry.instance" in sockets[fd].recv(65536):
                    told.add(fd)
        all_told.append((time.perf_counter() - begin, server.cpu_seconds() - cpu))
        writer.connection.getresponse().read()
        time.sleep(0.2)
    for s in sockets.values():
        s.close()
    return used, [t for t, _ in all_told], [c for _, c in all_told]


def beside(servers, args):
    """The rows that Consul has as well, one after the other on each."""
    out = []
    for server in servers:
        out.append(times("register → blocked watcher wakes", server.name, wakes(server, args.rounds)))
        out.append(times("KV PUT → blocked watcher wakes", server.name, kv_wakes(server, args.rounds)))
        put, get = kv(server, args.rounds * 3)
        out.append(times("KV PUT (durable)", server.name, put))
        out.append(times("KV GET", server.name, get))
        out.append(figure("1,000 idle blocking queries", server.name, idle_queries(server, 1_000), "MB"))
        out.append(figure("resident memory behind these rows", server.name, server.rss_mb(), "MB"))
    return out


def alone(server, args):
    """The rows that only Portico has."""
    out = []
    rows, missed = routed(server, args.rounds * 2)
    out += [times(row, server.name, values) for row, values in rows.items()]
    out.append(figure("requests that saw the state before the answer", server.name, missed, ""))
    memory, share, idle, each = heartbeats(server, args.instances, args.seconds)
    out.append(figure(f"{args.instances} instances registered", server.name, memory, "MB of the whole process"))
    out.append(figure(f"{args.instances} instances, 30 s heartbeats", server.name, share * 100, "% of a core, at their real rate"))
    out.append(figure("the same process without heartbeats", server.name, idle * 100, "% of a core"))
    out.append(figure("CPU of one heartbeat in a row of them", server.name, each * 1e6, "µs"))
    out.append(figure("the same at 333 a second", server.name, each * 33_333, "% of a core"))
    used, told, cpu = watchers(server, args.watchers)
    out.append(figure(f"{args.watchers} idle watchers through the gateway", server.name, used, "MB"))
    out.append(times(f"one change told to all {args.watchers}", server.name, told))
    out.append(figure("CPU of telling one change, a watcher", server.name, min(cpu) / args.watchers * 1e6, "µs"))
    return out


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--instances", type=int, default=10_000)
    parser.add_argument("--watchers", type=int, default=10_000)
    parser.add_argument("--seconds", type=int, default=15)
    parser.add_argument("--only", choices=["beside", "alone"])
    parser.add_argument("--no-write", action="store_true", help="leave bench/results alone")
    args = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard < args.watchers + 500:
        raise SystemExit(f"{args.watchers} watchers need as many descriptors; the limit is {hard}")
    folder = tempfile.mkdtemp(prefix="portico-bench-")
    servers = [Portico(folder)]
    binary = os.environ.get("CONSUL_BIN") or shutil.which("consul")
    if binary:
        servers.append(Consul(folder, binary))
    else:
        print("no consul is installed (Debian 11 has 1.8.7; CONSUL_BIN may name one): its rows are left out")
    results = []
    try:
        results.append(times("floor: 4 KiB and fdatasync on this disk", "disk", disk_floor(folder, args.rounds)))
        if args.only != "alone":
            results += beside(servers, args)
        if args.only != "beside":
            results += alone(servers[0], args)
    finally:
        for server in servers:
            server.stop()
        shutil.rmtree(folder, ignore_errors=True)
    if args.no_write:
        return
    out = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "results", "registry.json")
    with open(out, "w") as f:
        json.dump({"cores": os.cpu_count(), "rounds": args.rounds, "rows": results}, f, indent=1, ensure_ascii=False)
        f.write("\n")


main()
