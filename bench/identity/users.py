"""Lists of users in a tenant of a million on SQLite: CPU of the process for the first page of each kind of search (ID-13).

The rows are copies of one user that the API made, written by SQL while the process is down; then the process is
asked through the API as an administrator's screen would. `--users 50000` is the short form.
"""
import argparse
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import tempfile
import time
import urllib.parse
import urllib.request

LIST = "/api/identity/users"
OWED_MS = 20
BLOCK = 10_000


class Portico:
    """One process on a data directory that stays."""

    def __init__(self, folder):
        argv = [os.environ["PORTICO_BIN"], "--data-dir", folder, "--ready-json", "--no-demo", "--listen", "127.0.0.1:0",
                "--consul-listen", "off", "--admin-listen", "127.0.0.1:0"]
        env = {**os.environ, "PORTICO__LISTEN__GRPC": "off", "PORTICO__LISTEN__INTERNAL": "off",
               "PORTICO__TELEMETRY__LOG__TARGET": "file"}
        self.process = subprocess.Popen(argv, stdout=subprocess.PIPE, env=env)
        self.url = json.loads(self.process.stdout.readline())["http"]
        with open(os.path.join(folder, "operator.token")) as f:
            self.operator = dict([f.read().strip().split(": ", 1)])

    def call(self, method, path, body=None):
        request = urllib.request.Request(self.url + path, method=method,
                                         data=None if body is None else json.dumps(body).encode(),
                                         headers={"Content-Type": "application/json", **self.operator})
        with urllib.request.urlopen(request, timeout=120) as answer:
            return json.loads(answer.read())

    def cpu(self):
        total = 0
        for task in os.listdir(f"/proc/{self.process.pid}/task"):
            try:
                with open(f"/proc/{self.process.pid}/task/{task}/schedstat") as f:
                    total += int(f.read().split()[0])
            except FileNotFoundError:
                pass
        return total / 1e9

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()


def database(folder):
    """The file with the table of users."""
    for name in sorted(os.listdir(folder)):
        path = os.path.join(folder, name)
        if os.path.isfile(path):
            with open(path, "rb") as f:
                if not f.read(16).startswith(b"SQLite format 3"):
                    continue
            base = sqlite3.connect(path, isolation_level=None)
            if base.execute("SELECT 1 FROM sqlite_master WHERE name = 'users'").fetchone():
                return base
            base.close()
    raise SystemExit(f"no database in {folder}")


def rows_of(base, table, where):
    cursor = base.execute(f"SELECT * FROM {table} WHERE {where}")
    row = cursor.fetchone()
    return [column[0] for column in cursor.description], list(row)


def like(value, number):
    """An id beside one of the first user: the same form, rising with the number."""
    if isinstance(value, bytes):
        return (int.from_bytes(value, "big") + (number << 20)).to_bytes(16, "big")
    text = value.replace("-", "")
    raised = f"{int(text, 16) + (number << 20):032x}"
    if len(value) == 32:
        return raised
    return "-".join((raised[:8], raised[8:12], raised[12:16], raised[16:20], raised[20:]))


def later(value, seconds):
    """A moment some seconds before the first user's, in whatever form moments have."""
    if isinstance(value, int):
        return value - seconds * 1_000_000
    return (time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(1_700_000_000 - seconds)) + value[19:]) if value else value


def fill(base, count):
    base.execute("PRAGMA synchronous = OFF")
    names, first = rows_of(base, "users", "username = 'person'")
    at = {name: i for i, name in enumerate(names)}
    grants, grant = rows_of(base, "user_roles", "user_id = (SELECT id FROM users WHERE username = 'person')")
    holder = grants.index("user_id")

    def user(number):
        row = list(first)
        name = f"person{number:07}"
        row[at["id"]] = like(first[at["id"]], number)
        row[at["username"]] = row[at["username_key"]] = name
        row[at["search_key"]] = name.encode()
        row[at["email"]] = row[at["email_key"]] = f"{name}@example.com"
        row[at["phone"]] = f"+86138{number:08}"
        row[at["created_at"]] = later(first[at["created_at"]], count - number)
        row[at["last_login_at"]] = later(first[at["created_at"]], number * 37 % count) if number % 3 else None
        row[at["last_login_method"]] = "password" if number % 1_000 else "apple"
        # A few of a million are disabled; who looks for them must not wait for the million.
        row[at["status"]] = "disabled" if number % 250_000 == 7 else "active"
        return row

    marks = ", ".join("?" * len(names))
    role_marks = ", ".join("?" * len(grants))
    for start in range(1, count + 1, BLOCK):
        block = [user(n) for n in range(start, min(start + BLOCK, count + 1))]
        held = [[row[at["id"]] if i == holder else value for i, value in enumerate(grant)] for row in block]
        base.execute("BEGIN IMMEDIATE")
        base.executemany(f"INSERT INTO users ({', '.join(names)}) VALUES ({marks})", block)
        base.executemany(f"INSERT INTO user_roles ({', '.join(grants)}) VALUES ({role_marks})", held)
        base.execute("COMMIT")
    base.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def searches(count):
    middle = f"person{count // 2:07}"
    return [
        ("first page", {}),
        ("name prefix", {"name": middle[:-2]}),
        ("e-mail", {"email": f"{middle}@example.com"}),
        ("phone", {"phone": f"+86138{count // 2:08}"}),
        ("role", {"role": "user"}),
        ("status: nearly everybody", {"status": "active"}),
        ("status: a few", {"status": "disabled"}),
        ("method of the last login: one in a thousand", {"method": "apple"}),
    ]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--users", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=50)
    args = parser.parse_args()
    folder = tempfile.mkdtemp(prefix="portico-bench-")
    try:
        server = Portico(folder)
        server.call("POST", LIST, {"username": "person"})
        server.stop()
        base = database(folder)
        began = time.monotonic()
        fill(base, args.users)
        base.close()
        print(f"{args.users} users written in {time.monotonic() - began:.0f} s")
        server = Portico(folder)
        try:
            for name, query in searches(args.users):
                path = LIST + "?" + urllib.parse.urlencode({"limit": 50, **query})
                found = len(server.call("GET", path)["items"])
                before = server.cpu()
                for _ in range(args.rounds):
                    server.call("GET", path)
                each = (server.cpu() - before) * 1e3 / args.rounds
                print(f"{name:46} {found:3} users  {each:8.2f} ms CPU a page (owed {OWED_MS})", flush=True)
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


main()
