"""Portico beside nginx and HAProxy in one run: medians of interleaved rounds, ratios to nginx."""

import argparse
import json
import os
import re
import socket
import statistics
import subprocess
import threading
import time

from peers import CLIENT_CORE, Lab


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


def measure(program, port, path, connections, seconds, headers=()):
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


def download_peak_mb(program, port, path, headers=()):
    peak, stop = [program.rss_kb()], threading.Event()

    def look():
        while not stop.is_set():
            peak.append(program.rss_kb())
            time.sleep(0.01)

    thread = threading.Thread(target=look)
    thread.start()
    argv = ["curl", "-sS", "-o", os.devnull, *[a for h in headers for a in ("-H", h)]]
    subprocess.run([*argv, f"http://127.0.0.1:{port}{path}"], check=True)
    stop.set()
    thread.join()
    return max(peak) / 1024


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--only", default="")
    args = parser.parse_args()
    lab = Lab(args.workers)
    try:
        report(lab, args)
    finally:
        lab.close()


def report(lab, args):
    nginx, nginx_port = lab.nginx_proxy()
    haproxy, haproxy_port = lab.haproxy()
    plain, plain_port, _ = lab.portico("portico-plain")
    full, full_port, token = lab.portico("portico-full", full=True)
    bearer = [f"Authorization: Bearer {token}", "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"]
    close = ["Connection: close"]
    lab.upstream_cached = os.path.join(lab.dir, "www", "cached")
    os.makedirs(lab.upstream_cached)
    with open(os.path.join(lab.upstream_cached, "1k"), "wb") as f:
        f.write(b"x" * 1024)

    # (row, program, port, path, connections, headers)
    rows = [
        ("1 KB plain", "nginx", nginx, nginx_port, "/1k", 64, []),
        ("1 KB plain", "haproxy", haproxy, haproxy_port, "/1k", 64, []),
        ("1 KB plain", "portico", plain, plain_port, "/api/bench/1k", 64, []),
        ("1 KB everything on", "nginx", nginx, nginx_port, "/1k", 64, []),
        ("1 KB everything on", "portico", full, full_port, "/api/bench/1k", 64, bearer),
        ("1 KB cache hit", "nginx", nginx, nginx_port, "/1k", 64, []),
        ("1 KB cache hit", "portico", plain, plain_port, "/api/bench/cached/1k", 64, []),
        ("100 KB plain", "nginx", nginx, nginx_port, "/100k", 64, []),
        ("100 KB plain", "haproxy", haproxy, haproxy_port, "/100k", 64, []),
        ("100 KB plain", "portico", plain, plain_port, "/api/bench/100k", 64, []),
        ("connection per request", "nginx", nginx, nginx_port, "/1k", 64, close),
        ("connection per request", "haproxy", haproxy, haproxy_port, "/1k", 64, close),
        ("connection per request", "portico", plain, plain_port, "/api/bench/1k", 64, close),
    ]
    rows = [r for r in rows if args.only in r[0] and r[2] is not None]
    samples = {}
    for _ in range(args.rounds):
        for row, name, program, port, path, connections, headers in rows:
            sample = measure(program, port, path, connections, args.seconds, headers)
            samples.setdefault((row, name), []).append(sample)

    results = {"workers": args.workers, "rounds": args.rounds, "rows": []}
    print(f"\n{'':24} {'peer':8} {'cpu µs':>8} {'user':>6} {'system':>6} {'req/s':>9} {'p99 ms':>8}  × nginx")
    for (row, name), list_ in samples.items():
        mid = {k: statistics.median(s[k] for s in list_) for k in list_[0]}
        base = statistics.median(s["cpu_us"] for s in samples[(row, "nginx")])
        ratio = mid["cpu_us"] / base
        results["rows"].append({"row": row, "peer": name, "ratio_to_nginx": ratio, **mid})
        print(
            f"{row:24} {name:8} {mid['cpu_us']:8.2f} {mid['user_us']:6.2f} {mid['system_us']:6.2f}"
            f" {mid['rps']:9.0f} {mid['p99_ms']:8.2f}  {ratio:5.2f}"
        )
    if not args.only:
        memory = {}
        for name, program, port, path in (
            ("nginx", nginx, nginx_port, "/200m"),
            ("haproxy", haproxy, haproxy_port, "/200m"),
            ("portico", plain, plain_port, "/api/bench/200m"),
        ):
            if program is None:
                continue
            memory[name] = {
                "idle_kb_per_connection": idle_kb_per_connection(program, port),
                "download_200mb_peak_mb": download_peak_mb(program, port, path),
            }
            print(f"{name:8} idle {memory[name]['idle_kb_per_connection']:6.2f} KB per connection,"
                  f" 200 MB download peak {memory[name]['download_200mb_peak_mb']:.1f} MB")
        results["memory"] = memory
    out = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "results", "gateway.json")
    with open(out, "w") as f:
        json.dump(results, f, indent=1)


main()
