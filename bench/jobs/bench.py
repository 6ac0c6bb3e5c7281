"""Small jobs a second and CPU a job (client and server), beside the same rows written by hand."""

import argparse
import glob
import json
import os
import pathlib
import pwd
import shutil
import signal
import socket
import statistics
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]


def port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Postgres:
    """A server of its own in a temporary folder; fsync stays on."""

    def __init__(self, folder):
        programs = sorted(glob.glob("/usr/lib/postgresql/*/bin"))
        if not programs and not shutil.which("initdb"):
            raise SystemExit("PostgreSQL is not installed")
        self.bin = programs[-1] if programs else os.path.dirname(shutil.which("initdb"))
        self.data, self.port = os.path.join(folder, "pg"), port()
        self.user = pwd.getpwnam("postgres") if os.geteuid() == 0 else None
        if self.user:
            os.chmod(folder, 0o755)
            os.mkdir(self.data)
            os.chown(self.data, self.user.pw_uid, self.user.pw_gid)
        self.run("initdb", "-D", self.data, "-U", "postgres", "-A", "trust", "-E", "UTF8")
        self.process = self.spawn("postgres", "-D", self.data, "-p", str(self.port), "-h", "127.0.0.1", "-k", "")
        self.url = f"postgres://postgres@127.0.0.1:{self.port}/postgres"
        for _ in range(100):
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                time.sleep(0.1)
        raise SystemExit("PostgreSQL does not start")

    def options(self):
        out = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": "/"}
        return out | ({"user": self.user.pw_uid, "group": self.user.pw_gid} if self.user else {})

    def run(self, program, *words):
        subprocess.run([os.path.join(self.bin, program), *words], check=True, **self.options())

    def spawn(self, program, *words):
        return subprocess.Popen([os.path.join(self.bin, program), *words], **self.options())

    def stop(self):
        # Fast: it does not wait for its clients.
        self.process.send_signal(signal.SIGINT)
        self.process.wait(30)


def measure(program, url, pid, jobs):
    """The rows of the second pass."""
    done = subprocess.run([program, url, str(pid), str(jobs)], check=True, capture_output=True, text=True)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    return rows[len(rows) // 2 :]


def show(database, rounds):
    floors = [rows[0] for rows in rounds]
    out = []
    for i in range(len(rounds[0])):
        rows = [rows[i] for rows in rounds]
        cpu = lambda row: row["own_us"] + row["server_us"]
        middle = {k: statistics.median(row[k] for row in rows) for k in ("per_s", "worked_per_s", "own_us", "server_us")}
        ratio = statistics.median(cpu(row) / cpu(floor) for row, floor in zip(rows, floors))
        row = {"database": database, "row": rows[0]["row"], "jobs": rows[0]["jobs"], "ratio": ratio, **middle}
        print(
            f"{database:10} {row['row']:32} {row['per_s']:8.0f}/s  worked {row['worked_per_s']:8.0f}/s  "
            f"CPU {row['own_us']:6.1f} + server {row['server_us']:6.1f} us a job  {ratio:5.2f} x by hand",
            flush=True,
        )
        out.append(row)
    return out


def main():
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--jobs", type=int, default=20_000)
    words.add_argument("--rounds", type=int, default=3)
    words.add_argument("--program", help="the built example `throughput`")
    words.add_argument("--only", choices=["sqlite", "postgres"])
    args = words.parse_args()
    program = args.program
    if not program:
        cargo = ["cargo", "build", "--quiet", "--profile", "quick", "-p", "portico-jobs", "--example", "throughput"]
        subprocess.run(cargo, check=True, cwd=ROOT)
        program = str(ROOT / "target/quick/examples/throughput")
    results = []
    if args.only != "postgres":
        rounds = []
        for _ in range(args.rounds):
            with tempfile.TemporaryDirectory() as folder:
                rounds.append(measure(program, f"sqlite://{folder}/bench.db", 0, args.jobs))
        results += show("sqlite", rounds)
    if args.only != "sqlite":
        with tempfile.TemporaryDirectory() as folder:
            server = Postgres(folder)
            try:
                rounds = [measure(program, server.url, server.process.pid, args.jobs) for _ in range(args.rounds)]
            finally:
                server.stop()
        results += show("postgres", rounds)
    if not args.only and not args.program:
        out = ROOT / "bench/results/jobs.json"
        out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
