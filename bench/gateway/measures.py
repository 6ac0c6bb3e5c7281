"""How each figure is taken: CPU from the processes, load by wrk (closed loop) or portico-bench (open loop)."""

import http.client
import json
import os
import re
import socket
import statistics
import subprocess
import threading
import time

from peers import CLIENT_CORE, wait_for

TOOLS = os.environ.get("PORTICO_BENCH_BIN", "")


def wrk(port, path, connections, seconds, headers=()):
    argv = ["taskset", "-c", CLIENT_CORE, "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency"]
    for header in headers:
        argv += ["-H", header]
    out = subprocess.run([*argv, f"http://127.0.0.1:{port}{path}"], capture_output=True, text=True).stdout
    requests = int(re.search(r"(\d+) requests in", out).group(1))
    rate = float(re.search(r"Requests/sec:\s+([\d.]+)", out).group(1))
    p99 = re.search(r"99%\s+([\d.]+)(us|ms|s)", out)
    scale = {"us": 1e-3, "ms": 1.0, "s": 1e3}[p99.group(2)]
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", out)
    return requests, rate, float(p99.group(1)) * scale, int(bad.group(1)) if bad else 0


def closed_loop(program, port, path, connections, seconds, headers=()):
    """As many requests as fit: CPU per request, requests per second and p99 at saturation."""
    before, (user0, system0) = program.cpu_seconds(), program.user_system()
    requests, rate, p99, bad = wrk(port, path, connections, seconds, headers)
    cpu, (user1, system1) = program.cpu_seconds() - before, program.user_system()
    if bad:
        raise SystemExit(f"{program.name}{path}: {bad} answers were not 2xx")
    n = max(requests, 1)
    return {
        "cpu_us": cpu / n * 1e6,
        "user_us": (user1 - user0) / n * 1e6,
        "system_us": (system1 - system0) / n * 1e6,
        "rps": rate,
        "p99_ms": p99,
    }


def open_loop(program, port, path, rate, seconds, headers=()):
    """A fixed rate; latency counts from the moment at which a request was due."""
    argv = ["taskset", "-c", CLIENT_CORE, TOOLS, "load", f"127.0.0.1:{port}", path, str(rate), "64", str(seconds)]
    before = program.cpu_seconds()
    out = subprocess.run([*argv, *headers], capture_output=True, text=True, check=True).stdout
    seen = json.loads(out)
    seen["cpu_us"] = (program.cpu_seconds() - before) / max(seen["answered"], 1) * 1e6
    return seen


def idle_kb_per_connection(program, port, count=2000):
    before = program.rss_kb()
    sockets = []
    for _ in range(count):
        s = socket.create_connection(("127.0.0.1", port))
        s.sendall(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        s.recv(4096)
        sockets.append(s)
    time.sleep(1)
    after = program.rss_kb()
    for s in sockets:
        s.close()
    return (after - before) / count


def slow_download_added_kb(program, port, path, seconds):
    """What 200 MB to a reader of 64 KiB/s add to the resident memory while it is watched."""
    before = program.rss_kb()
    peak = before
    reader = socket.socket()
    reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
    reader.connect(("127.0.0.1", port))
    reader.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        reader.recv(16 * 1024)
        peak = max(peak, program.rss_kb())
        time.sleep(0.25)
    reader.close()
    return peak - before


def fast_download_added_kb(program, port, path):
    before = program.rss_kb()
    peak, stop = [before], threading.Event()

    def look():
        while not stop.is_set():
            peak.append(program.rss_kb())
            time.sleep(0.01)

    thread = threading.Thread(target=look)
    thread.start()
    subprocess.run(["curl", "-sS", "-o", os.devnull, f"http://127.0.0.1:{port}{path}"], check=True)
    stop.set()
    thread.join()
    return max(peak) - before


def start_ms(lab, first):
    """From the start of the program to its first answer."""
    process, begun = lab.bare_portico("start", first)
    ready = json.loads(process.stdout.readline())
    port = int(ready["http"].rsplit(":", 1)[1])
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("GET", "/healthz")
    status = connection.getresponse().status
    took = (time.monotonic() - begun) * 1e3
    connection.close()
    process.terminate()
    process.wait(20)
    if status != 200:
        raise SystemExit(f"the first answer had status {status}")
    return took


def starts(lab, rounds):
    first = [start_ms(lab, True) for _ in range(rounds)]
    warm = [start_ms(lab, False) for _ in range(rounds)]
    return {"first_ms": statistics.median(first), "warm_ms": statistics.median(warm)}


def idle(program, settle, seconds):
    """Memory and CPU of the serving process alone, with its demo registered and nobody asking."""
    time.sleep(settle)
    before = program.own_cpu_seconds()
    time.sleep(seconds)
    return {
        "rss_mb": program.own_rss_kb() / 1024,
        "cpu_percent_of_a_core": (program.own_cpu_seconds() - before) / seconds * 100,
    }


class Unrest:
    """Changes a route each second, and kills and starts one of the instances."""

    def __init__(self, lab, full_url, header):
        self.lab, self.url, self.header = lab, full_url, header
        self.port = lab.second_instance(full_url, header)
        self.stop = threading.Event()
        self.faults = []
        self.changes = 0
        self.threads = [threading.Thread(target=f) for f in (self.change, self.flap)]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        for thread in self.threads:
            thread.join()
        self.lab.end_flapping()
        if self.faults:
            raise SystemExit(f"a route could not be changed: {self.faults[0]}")

    def change(self):
        while not self.stop.wait(1):
            self.changes += 1
            text = f"word {self.changes}"
            doc = {"doc": {"path": {"exact": "/bench-word"}, "target": {"fixed": {"status": 200, "body": text}}}}
            try:
                self.lab.operate("PUT", self.url + "/api/gateway/routes/bench-word", self.header, doc)
            except OSError as error:
                self.faults.append(str(error))

    def flap(self):
        while not self.stop.is_set():
            self.lab.start_flapping()
            wait_for(self.port)
            self.stop.wait(0.5)
            self.lab.end_flapping()
            self.stop.wait(0.5)
