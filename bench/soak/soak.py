"""Mixed traffic for ten minutes while services come and go and routes change; fails when something grows."""

import argparse
import asyncio
import collections
import contextlib
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

import patrons
import shop

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
MEGABYTE = 1024 * 1024


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--rate", type=int, default=400, help="turns a second of all clients together")
    parser.add_argument("--every", type=float, default=5, help="seconds between samples")
    return parser.parse_args()


def binary():
    given = [os.environ.get("PORTICO_BIN"), *(os.path.join(ROOT, "target", p, "portico") for p in ("dist", "quick", "debug"))]
    there = [path for path in given if path and os.path.exists(path)]
    if not there:
        sys.exit("no binary: build one, or say PORTICO_BIN")
    return os.environ.get("PORTICO_BIN") or max(there, key=os.path.getmtime)


class House:
    """The process under test."""

    def __init__(self, folder):
        flags = ["--ready-json", "--no-demo", "--data-dir", os.path.join(folder, "data")]
        for name in ("listen", "consul-listen", "admin-listen", "grpc-listen", "internal-listen"):
            flags += [f"--{name}", "127.0.0.1:0"]
        self.log = open(os.path.join(folder, "log"), "w")
        self.process = subprocess.Popen([binary(), "serve", *flags], cwd=folder, stdout=subprocess.PIPE, stderr=self.log, text=True)
        for line in self.process.stdout:
            with contextlib.suppress(ValueError):
                ready = json.loads(line)
                if ready.get("event") == "ready":
                    break
        else:
            sys.exit("the process did not start")
        # What it says further must not fill the pipe.
        subprocess.Popen(["cat"], stdin=self.process.stdout, stdout=self.log)
        self.http, self.admin = ready["http"], ready["admin"]
        with open(os.path.join(folder, "data", "operator.token")) as f:
            self.token = f.read().strip().removeprefix("Authorization: Bearer ")

    def call(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        request = urllib.request.Request(self.http + path, data, headers, method=method)
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.loads(answer.read() or b"null")

    def register(self, name, port, key=None):
        body = {"name": name, "version": "1.0.0", "host": "127.0.0.1", "port": port, "default_access": "public", "instance_key": key or name}
        return self.call("POST", "/api/registry/register", body)["id"]

    def sample(self):
        pid = self.process.pid
        with open(f"/proc/{pid}/status") as f:
            status = dict(line.split(":", 1) for line in f)
        with open(f"/proc/{pid}/stat") as f:
            fields = f.read().rsplit(")", 1)[1].split()
        with urllib.request.urlopen(f"{self.admin}/metrics", timeout=10) as answer:
            metrics = answer.read().decode()
        return {
            "rss_mb": int(status["VmRSS"].split()[0]) / 1024,
            "descriptors": len(os.listdir(f"/proc/{pid}/fd")),
            "threads": int(status["Threads"]),
            "cpu_s": (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"),
            "tasks": figure(metrics, "portico_runtime_tasks"),
            "connections": figure(metrics, "portico_gateway_connections"),
            "series": sum(1 for line in metrics.splitlines() if line and not line.startswith("#")),
        }


def figure(metrics, begin):
    lines = (line for line in metrics.splitlines() if line.startswith((begin + "{", begin + " ")))
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines)


class Town:
    """What all clients share: the pace, the end, the faults."""

    def __init__(self, house, args):
        host, port = house.http.removeprefix("http://").rsplit(":", 1)
        self.address = (host, int(port))
        self.over = False
        self.turns = 0
        self.faults = collections.Counter()
        self.allowed = asyncio.Semaphore(0)
        self.rate = args.rate

    def now(self):
        return asyncio.get_running_loop().time()

    async def turn(self):
        await self.allowed.acquire()
        self.turns += 1
        return not self.over

    async def pace(self):
        step = 0.02
        owed = 0.0
        while not self.over:
            owed += self.rate * step
            # Nobody saves turns up: a slow moment is not followed by a burst.
            if not self.allowed._value > self.rate:
                for _ in range(int(owed)):
                    self.allowed.release()
            owed -= int(owed)
            await asyncio.sleep(step)

    async def end(self, tasks):
        self.over = True
        for _ in range(10_000):
            self.allowed.release()
        await asyncio.wait(tasks, timeout=20)
        for task in tasks:
            task.cancel()

    async def patron(self, act):
        while not self.over:
            try:
                await act(self)
            except patrons.Wrong as wrong:
                self.faults[str(wrong)[:160]] += 1
            except Exception as error:  # a client that stops unseen would make the load look light
                if not self.over:
                    self.faults[f"{act.__name__}: {error!r}"[:160]] += 1


async def churn(house, town, ports):
    """Each second a service comes, the one of 15 seconds ago goes, and a route changes."""
    there = collections.deque()
    wire = patrons.Wire(town.address)
    for n in iter(range(1_000_000).__next__, None):
        if town.over:
            return
        begun = town.now()
        name = f"guest-{n % 60}"
        try:
            id = await asyncio.to_thread(house.register, name, ports[n % 3])
            there.append(id)
            await wire.ask("GET", f"/api/{name}/plain")
            if len(there) > 15:
                await asyncio.to_thread(house.call, "POST", f"/api/registry/deregister/{there.popleft()}", {"now": True})
            doc = {"path": {"exact": "/turn"}, "target": {"fixed": {"status": 200, "body": str(n)}}}
            await asyncio.to_thread(house.call, "PUT", "/api/gateway/routes/turn", {"doc": doc})
            _, text = await wire.ask("GET", "/turn")
            if text.decode() != str(n):
                town.faults["a saved route was not in force"] += 1
        except (OSError, asyncio.IncompleteReadError, patrons.Wrong) as error:
            town.faults[f"churn: {error!r}"[:160]] += 1
        await asyncio.sleep(max(0.0, begun + 1 - town.now()))


async def beat(house, town, own):
    """Instances that say nothing for five minutes are taken for gone."""
    while not town.over:
        for id in own:
            try:
                await asyncio.to_thread(house.call, "POST", "/api/registry/heartbeat", {"service_id": id})
            except OSError as error:
                town.faults[f"heartbeat: {error!r}"[:160]] += 1
        await asyncio.sleep(20)


COLUMNS = ["rss_mb", "descriptors", "threads", "tasks", "connections", "series", "cpu_s"]


async def watch(house, town, args):
    samples, begun = [], time.monotonic()
    print(f"{'s':>5} {'turns':>8} " + " ".join(f"{c:>11}" for c in COLUMNS), flush=True)
    while time.monotonic() - begun < args.seconds:
        await asyncio.sleep(args.every)
        sample = await asyncio.to_thread(house.sample)
        sample["at"] = time.monotonic() - begun
        samples.append(sample)
        print(f"{sample['at']:5.0f} {town.turns:8} " + " ".join(f"{sample[c]:11.1f}" for c in COLUMNS), flush=True)
    return samples


def verdict(samples, after, faults):
    """Compares the first and the last third behind the warm-up."""
    warm = samples[max(1, len(samples) // 5) :]
    third = max(1, len(warm) // 3)
    first, last = warm[:third], warm[-third:]
    room = {"rss_mb": lambda v: max(8, v * 0.1), "descriptors": lambda _: 25, "threads": lambda _: 4, "tasks": lambda _: 25, "series": lambda _: 20}
    bad = [f"{count} × {fault}" for fault, count in faults.most_common(10)]
    print()
    for name, allowed in room.items():
        a, b = (statistics.median(s[name] for s in part) for part in (first, last))
        grown = b - a > allowed(a)
        print(f"{name:>12}: {a:8.1f} → {b:8.1f}, afterwards {after[name]:8.1f}{'   GROWS' if grown else ''}")
        if grown:
            bad.append(f"{name} grew from {a:.1f} to {b:.1f}")
    return bad


async def run(args):
    ours, theirs = multiprocessing.Pipe()
    instances = multiprocessing.Process(target=shop.main, args=(theirs, 3), daemon=True)
    instances.start()
    ports = ours.recv()
    with tempfile.TemporaryDirectory() as folder:
        house = House(folder)
        try:
            own = [house.register("shop", port, f"shop-{n}") for n, port in enumerate(ports[:3])]
            own.append(house.register("flapping", ports[3]))
            rule = {"match": {"services": ["shop"]}, "ttl_s": 1}
            with contextlib.suppress(urllib.error.HTTPError):
                house.call("PUT", "/api/gateway/cache-rules/shop", {"doc": rule})
            town = Town(house, args)
            tasks = [asyncio.create_task(town.patron(act)) for act, count in patrons.ALL for _ in range(count)]
            tasks += [asyncio.create_task(job) for job in (town.pace(), churn(house, town, ports), beat(house, town, own))]
            begun = time.monotonic()
            samples = await watch(house, town, args)
            seconds = time.monotonic() - begun
            await town.end(tasks)
            await asyncio.sleep(8)
            after = house.sample()
            bad = verdict(samples, after, town.faults)
            print(f"{town.turns} turns in {seconds:.0f} s ({town.turns / seconds:.0f}/s), {after['cpu_s']:.0f} s of CPU, binary {os.path.relpath(binary(), ROOT)}")
        finally:
            house.process.terminate()
            house.process.wait(40)
            instances.terminate()
    for line in bad:
        print("FAILED:", line)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(run(arguments())))
