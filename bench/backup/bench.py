"""Backup, verification and restore of a SQLite database of a given size; the write latency beside a backup."""

import argparse
import contextlib
import json
import os
import pathlib
import random
import resource
import signal
import sqlite3
import subprocess
import tempfile
import threading
import time
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
RESULTS = HERE.parent / "results" / "backup.json"


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--megabytes", type=int, default=1024)
    parser.add_argument("--only", default="", help="a short run: nothing is written to results")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--seconds", type=int, default=5, help="how long writers are measured without a backup")
    return parser.parse_args()


class Portico:
    """A running process on a data directory."""

    def __init__(self, binary, data):
        self.data = data
        command = [binary, "--ready-json", "--no-demo", "--data-dir", str(data)]
        for name in ("listen", "consul-listen", "admin-listen", "grpc-listen", "internal-listen"):
            command += [f"--{name}", "127.0.0.1:0"]
        log = open(data.parent / "log", "ab")
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log)
        for line in self.process.stdout:
            with contextlib.suppress(ValueError):
                ready = json.loads(line)
                if ready.get("event") == "ready":
                    break
        else:
            raise SystemExit("portico did not start; see its log")
        self.consul = ready["consul"]
        threading.Thread(target=lambda: [None for _ in self.process.stdout], daemon=True).start()

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)


def fill(data, megabytes):
    """Rows as the outbox has them: ids, words, JSON that differs from row to row."""
    numbers = random.Random(7)
    database = sqlite3.connect(data / "portico.db")
    (first,) = database.execute("SELECT coalesce(max(seq), 0) FROM outbox").fetchone()
    insert = "INSERT INTO outbox (seq, topic, key, payload, trace, created_at) VALUES (?, ?, ?, ?, ?, ?)"
    file, seq = data / "portico.db", first
    while file.stat().st_size < megabytes * 1024 * 1024:
        rows = []
        for _ in range(50_000):
            seq += 1
            noise = "%032x" % numbers.getrandbits(128)
            payload = json.dumps({"id": noise, "service": f"s{seq % 97}", "state": "passing", "n": seq, "note": "x" * (seq % 60)})
            at = f"2026-01-01T00:{seq // 60 % 60:02}:{seq % 60:02}.000001+00:00"
            rows.append((seq, "bench.row.added", noise, payload, noise, at))
        database.executemany(insert, rows)
        database.commit()
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    database.execute("INSERT INTO seq_counters (name, value) VALUES ('outbox', ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value", (seq,))
    database.commit()
    database.close()
    return seq - first


def measured(command):
    """Seconds and peak memory in MiB of a command."""
    begin = time.monotonic()
    child = subprocess.Popen(command, stdout=subprocess.PIPE)
    out = child.stdout.read()
    _, status, usage = os.wait4(child.pid, 0)
    took = time.monotonic() - begin
    if status != 0:
        raise SystemExit(f"{command} failed")
    return took, usage.ru_maxrss / 1024, json.loads(out)


def writers(address, stop, latencies, count=4):
    """Durable KV writes, one after the other on each of some connections."""

    def one(number):
        turn = 0
        while not stop.is_set():
            turn += 1
            request = urllib.request.Request(f"{address}/v1/kv/bench/{number}-{turn % 100}", data=b"x" * 200, method="PUT")
            begin = time.monotonic()
            with urllib.request.urlopen(request, timeout=30) as answer:
                answer.read()
            latencies.append(time.monotonic() - begin)

    threads = [threading.Thread(target=one, args=(n,)) for n in range(count)]
    for thread in threads:
        thread.start()
    return threads


def p(latencies, part):
    ordered = sorted(latencies)
    return 1000 * ordered[min(len(ordered) - 1, int(len(ordered) * part))] if ordered else 0.0


def under_load(binary, data, file, seconds):
    portico = Portico(binary, data)
    try:
        rows = {}
        for name, work in (("alone", lambda: time.sleep(seconds)), ("beside a backup", lambda: measured(
                [binary, "backup", "now", "--json", "--to", str(file), "--data-dir", str(data)]))):
            stop, latencies = threading.Event(), []
            threads = writers(portico.consul, stop, latencies)
            work()
            stop.set()
            for thread in threads:
                thread.join()
            rows[name] = {"writes": len(latencies), "p50_ms": p(latencies, 0.5), "p99_ms": p(latencies, 0.99), "max_ms": p(latencies, 1.0)}
        return rows
    finally:
        portico.stop()


def main():
    wish = arguments()
    binary = os.environ["PORTICO_BIN"]
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        data = folder / "data"
        first = Portico(binary, data)
        first.stop()
        rows = fill(data, wish.megabytes)
        size = (data / "portico.db").stat().st_size / 1024 / 1024
        file, into = folder / "one.pbk", folder / "restored"
        common = ["--json", "--data-dir", str(data)]
        made = measured([binary, "backup", "now", "--to", str(file), *common])
        verified = measured([binary, "backup", "verify", str(file), *common])
        restored = measured([binary, "restore", str(file), "--into", str(into), "--master-key", str(data / "master.key"), "--json"])
        loaded = under_load(binary, data, folder / "two.pbk", wish.seconds)
        result = {
            "database_mib": round(size), "rows": rows, "file_mib": round(file.stat().st_size / 1024 / 1024),
            "writers": loaded,
            **{name: {"s": round(took, 1), "peak_mib": round(peak)} for name, (took, peak, _) in
               {"backup": made, "verify": verified, "restore": restored}.items()},
        }
    print(f"{result['database_mib']} MiB, {rows} rows → a file of {result['file_mib']} MiB")
    for name in ("backup", "verify", "restore"):
        print(f"{name:8} {result[name]['s']:6.1f} s, peak {result[name]['peak_mib']} MiB")
    for name, row in loaded.items():
        print(f"writers {name}: p50 {row['p50_ms']:.1f} ms, p99 {row['p99_ms']:.1f} ms, max {row['max_ms']:.1f} ms ({row['writes']} writes)")
    if not wish.only:
        RESULTS.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    main()
