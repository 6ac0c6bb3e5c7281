"""Portico beside nginx and HAProxy in one run: medians of interleaved rounds, ratios to the first peer of a row."""

import argparse
import json
import os
import statistics
import time

import measures
from peers import Lab

TRACE = "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4, help="of each measurement")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--rate", type=int, default=10_000, help="requests a second of the open loop")
    parser.add_argument("--watch", type=int, default=60, help="seconds that the slow reader is watched")
    parser.add_argument("--only", default="", help="part of the rows' names; nothing is written down")
    return parser.parse_args()


def main():
    args = arguments()
    lab = Lab(args.workers)
    results = {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "workers": args.workers,
        "rounds": args.rounds,
        "seconds": args.seconds,
    }
    try:
        peers = Peers(lab)
        results["rows"] = saturation(peers, args)
        if wanted(args, "fixed rate"):
            results["fixed_rate"] = fixed_rate(lab, peers, args)
        if wanted(args, "memory"):
            results["memory"] = memory(peers, args)
        if wanted(args, "start"):
            results["start"] = measures.starts(lab, args.rounds)
            print("start to first answer: {first_ms:.0f} ms first, {warm_ms:.0f} ms warm".format(**results["start"]))
        if wanted(args, "idle"):
            results["idle"] = measures.idle(lab.idle_portico(), 20, 30)
            print("idle: {rss_mb:.1f} MB, {cpu_percent_of_a_core:.2f} % of a core".format(**results["idle"]))
    finally:
        lab.close()
    if not args.only:
        out = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "results", "gateway.json")
        with open(out, "w") as f:
            json.dump(results, f, indent=1)


def wanted(args, name):
    return args.only in name


class Peers:
    """Everything that is measured, started once."""

    def __init__(self, lab):
        self.lab = lab
        self.nginx = lab.nginx_proxy()
        self.haproxy = lab.haproxy()
        self.plain = lab.portico("portico-plain")
        self.full = lab.portico("portico-full", full=True)
        self.logging = lab.portico("portico-logging", full=True, access_log="all")
        self.hyper = lab.bare_hyper()
        lab.cached_file()

    def rows(self):
        """(row, peer, program, port, path, headers); ratios are to the first peer of a row."""
        one, hundred, close = "/api/bench/1k", "/api/bench/100k", ["Connection: close"]

        def known(portico):
            return [f"Authorization: Bearer {portico.token}", TRACE]

        def three(row, path, mine, headers):
            yield (row, "nginx", *self.nginx, path, headers)
            if self.haproxy:
                yield (row, "haproxy", *self.haproxy, path, headers)
            yield (row, "portico", *self.plain.place, mine, headers)

        yield from three("1 KB plain", "/1k", one, [])
        yield ("1 KB everything on", "nginx", *self.nginx, "/1k", [])
        yield ("1 KB everything on", "plain", *self.plain.place, one, [])
        yield ("1 KB everything on", "portico", *self.full.place, one, known(self.full))
        yield ("1 KB everything on", "all lines", *self.logging.place, one, known(self.logging))
        yield ("1 KB cache hit", "nginx", *self.nginx, "/1k", [])
        yield ("1 KB cache hit", "portico", *self.plain.place, "/api/bench/cached/1k", [])
        yield from three("100 KB plain", "/100k", hundred, [])
        yield from three("connection per request", "/1k", one, close)
        yield ("in-process answer", "hyper", *self.hyper, "/", [])
        yield ("in-process answer", "portico", *self.plain.place, "/healthz", [])


def saturation(peers, args):
    rows = [r for r in peers.rows() if args.only in r[0]]
    samples = {}
    for _ in range(args.rounds):
        peers.lab.heartbeat()
        for row, name, program, port, path, headers in rows:
            sample = measures.closed_loop(program, port, path, 64, args.seconds, headers)
            samples.setdefault((row, name), []).append(sample)
    out, base = [], {}
    if rows:
        print(f"\n{'':24} {'peer':10} {'cpu µs':>8} {'user':>6} {'system':>6} {'req/s':>9} {'p99 ms':>8}  ratio")
    for (row, name), list_ in samples.items():
        mid = {k: statistics.median(s[k] for s in list_) for k in list_[0]}
        first, cpu = base.setdefault(row, (name, mid["cpu_us"]))
        # The ratio of each round, so that what disturbed both does not count.
        each = [s["cpu_us"] / b["cpu_us"] for s, b in zip(list_, samples[(row, first)])]
        ratio = statistics.median(each)
        out.append({"row": row, "peer": name, "ratio": ratio, "ratio_to": first, **mid})
        print(
            f"{row:24} {name:10} {mid['cpu_us']:8.2f} {mid['user_us']:6.2f} {mid['system_us']:6.2f}"
            f" {mid['rps']:9.0f} {mid['p99_ms']:8.2f}  {ratio:5.2f} × {first}"
        )
    return out


def fixed_rate(lab, peers, args):
    """GW-P7: the same rate for all; at last with routes changing and an instance coming and going."""
    bearer = [f"Authorization: Bearer {peers.full.token}", TRACE]
    rows = [("nginx", *peers.nginx, "/1k", [])]
    if peers.haproxy:
        rows.append(("haproxy", *peers.haproxy, "/1k", []))
    rows.append(("plain", *peers.plain.place, "/api/bench/1k", []))
    rows.append(("everything on", *peers.full.place, "/api/bench/1k", bearer))
    samples = {}
    for _ in range(args.rounds):
        lab.heartbeat()
        for name, program, port, path, headers in rows:
            seen = measures.open_loop(program, port, path, args.rate, args.seconds, headers)
            samples.setdefault(name, []).append(seen)
    with measures.Unrest(lab, peers.full.url, peers.full.header):
        for _ in range(args.rounds):
            seen = measures.open_loop(*peers.full.place, "/api/bench/1k", args.rate, args.seconds, bearer)
            samples.setdefault("unrest", []).append(seen)
    print(f"\n{args.rate} requests a second, open loop")
    out = []
    for name, list_ in samples.items():
        mid = {k: statistics.median(s[k] for s in list_) for k in list_[0] if k.endswith(("_ms", "_us"))}
        failed = sum(s["refused"] + s["broken"] for s in list_)
        fault = next((s["first_fault"] for s in list_ if s["first_fault"]), None)
        out.append({"peer": name, "rate": args.rate, "failed": failed, "first_fault": fault, **mid})
        print(
            f"{name:14} p50 {mid['p50_ms']:6.3f} p90 {mid['p90_ms']:6.3f} p99 {mid['p99_ms']:6.3f}"
            f" p99.9 {mid['p999_ms']:6.3f} ms, {mid['cpu_us']:5.1f} µs, {failed} failed {fault or ''}"
        )
    return out


def memory(peers, args):
    out = {}
    places = [("nginx", *peers.nginx, "/200m"), ("portico", *peers.plain.place, "/api/bench/200m")]
    if peers.haproxy:
        places.insert(1, ("haproxy", *peers.haproxy, "/200m"))
    for name, program, port, path in places:
        one = {
            "slow_200mb_added_kb": measures.slow_download_added_kb(program, port, path, args.watch),
            "fast_200mb_added_kb": measures.fast_download_added_kb(program, port, path),
            "idle_kb_per_connection": measures.idle_kb_per_connection(program, port),
        }
        out[name] = one
        print(
            f"{name:8} 200 MB to a slow reader add {one['slow_200mb_added_kb']} KB, to a fast one"
            f" {one['fast_200mb_added_kb']} KB; {one['idle_kb_per_connection']:.2f} KB per idle connection"
        )
    return out


main()
