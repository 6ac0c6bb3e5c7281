"""Identity on this machine: what a login, a refresh and a token check cost, and what a flood of logins does.

The server and the client share the cores (`--cores`, all by default); CPU is the server's own. BENCH_DATABASE may
name a PostgreSQL database on the same cores, which is then measured after SQLite.
"""
import argparse
import json
import os
import shutil
import signal
import subprocess
import tempfile
import urllib.request

TOOLS = os.environ["PORTICO_BENCH_BIN"]
PASSWORD = "quartz lantern 88 ferry"
MANY = '["100000000/min"]'
SETTINGS = {
    "gateway.access_log": '"off"',
    "identity.limit.password_per_address": MANY,
    "identity.limit.otp_per_address": MANY,
    "identity.limit.refresh_per_session": MANY,
    "identity.limit.registration_per_address": MANY,
    "identity.sms.limit.phone": MANY,
    "identity.sms.limit.device": MANY,
    "identity.sms.limit.ip": MANY,
    "identity.sms.limit.net": MANY,
    "identity.sms.limit.prefix": MANY,
    "identity.sms.budget.hour": "1000000",
    "identity.sms.budget.day": "1000000",
    "identity.sms.resend_waits_s": "[0, 0, 0]",
}


class Portico:
    def __init__(self, database, users):
        self.folder = tempfile.mkdtemp(prefix="portico-bench-")
        phones = [{"phone": f"+86138{i:08}", "code": "135790", "until": "2099-01-01T00:00:00Z"} for i in range(users)]
        numbers = ", ".join('{ phone = "%(phone)s", code = "%(code)s", until = "%(until)s" }' % p for p in phones)
        settings = {**SETTINGS, "identity.sms.test_numbers": f"[{numbers}]"}
        config = os.path.join(self.folder, "portico.toml")
        with open(config, "w") as f:
            f.write('[telemetry.log]\ntarget = "file"\n[settings]\n')
            for key, value in settings.items():
                f.write(f'"{key}" = {value}\n')
        data = os.path.join(self.folder, "data")
        argv = [os.environ["PORTICO_BIN"], "--data-dir", data, "--ready-json", "--no-demo", "--config", config,
                "--listen", "127.0.0.1:0", "--consul-listen", "off", "--admin-listen", "127.0.0.1:0"]
        if database:
            argv += ["--database", database]
        env = {**os.environ, "PORTICO__LISTEN__GRPC": "off", "PORTICO__LISTEN__INTERNAL": "off"}
        self.process = subprocess.Popen(argv, stdout=subprocess.PIPE, env=env)
        self.url = json.loads(self.process.stdout.readline())["http"]
        self.address = self.url.removeprefix("http://")
        with open(os.path.join(data, "operator.token")) as f:
            self.operator = dict([f.read().strip().split(": ", 1)])

    def call(self, method, path, body=None, headers=None):
        request = urllib.request.Request(self.url + path, method=method,
                                         data=None if body is None else json.dumps(body).encode(),
                                         headers={"Content-Type": "application/json", **(headers or {})})
        with urllib.request.urlopen(request, timeout=60) as answer:
            text = answer.read()
            return json.loads(text) if text else None

    def user(self, number):
        """A user with a password of their own, logged in once from a device that stays."""
        user = self.call("POST", "/api/identity/users", {"username": f"user-{number}"}, self.operator)
        handed = self.call("POST", f"/api/identity/users/{user['id']}/reset-password", {"how": "temporary"}, self.operator)
        device = {"device_id": f"device-{number:04}", "platform": "cli"}
        first = self.call("POST", "/api/identity/login/password",
                          {"identifier": f"user-{number}", "password": handed["password"], "device": device})
        done = self.call("POST", "/api/identity/login/password-change",
                         {"ticket": first["ticket"], "device_id": device["device_id"], "new_password": PASSWORD})
        tokens = done["tokens"]
        return {"identifier": f"user-{number}", "device_id": device["device_id"], "secret": tokens["device_secret"],
                "refresh": tokens["refresh_token"], "access": tokens["access_token"]}

    def cpu(self):
        total = 0
        for task in os.listdir(f"/proc/{self.process.pid}/task"):
            try:
                with open(f"/proc/{self.process.pid}/task/{task}/schedstat") as f:
                    total += int(f.read().split()[0])
            except FileNotFoundError:
                pass
        return total / 1e9

    def rss_mb(self):
        with open(f"/proc/{self.process.pid}/status") as f:
            return next(int(line.split()[1]) for line in f if line.startswith("VmRSS:")) / 1024

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


LOGIN = {"method": "POST", "path": "/api/identity/login/password",
         "body": {"identifier": "${identifier}", "password": PASSWORD, "device": {"device_id": "${device_id}", "device_secret": "${secret}", "platform": "cli"}},
         "keep": {"refresh": "/tokens/refresh_token", "access": "/tokens/access_token"}}
REFRESH = {"method": "POST", "path": "/api/identity/token/refresh", "body": {"refresh_token": "${refresh}"},
           "keep": {"refresh": "/refresh_token"}}
SEND, VERIFY = "/api/identity/login/sms/send", "/api/identity/login/sms/verify"
SMS = {"method": "POST", "path": VERIFY,
       "body": {"transaction_id": "${transaction}", "code": "135790",
                "device": {"device_id": "${device_id}", "device_secret": "${secret}", "platform": "cli"}}}
OPEN = {"method": "GET", "path": "/api/identity/login/methods"}
KNOWN = {**OPEN, "headers": ["Authorization: Bearer ${access}"]}


def start(server, steps, users, connections, seconds, turns=None):
    path = os.path.join(server.folder, f"scenario-{len(os.listdir(server.folder))}.json")
    with open(path, "w") as f:
        json.dump({"steps": steps, "variables": users[:connections], "turns": turns}, f)
    return subprocess.Popen([TOOLS, "steps", server.address, path, str(connections), str(seconds)],
                            stdout=subprocess.PIPE, text=True)


def drive(server, steps, users, connections, seconds, turns=None):
    before = server.cpu()
    report = json.loads(start(server, steps, users, connections, seconds, turns).communicate()[0])
    report["cpu_ms"] = (server.cpu() - before) * 1e3 / max(report["done"], 1)
    report["per_second"] = report["done"] / report["seconds"]
    if report["failed"]:
        raise SystemExit(f"{report['failed']} failed: {report['first_fault']}")
    return report


def row(name, report, note=""):
    print(f"{name:44} {report['per_second']:9.0f}/s  {report['cpu_ms'] * 1e3:9.1f} µs CPU  "
          f"p50 {report['p50_ms']:7.2f}  p99 {report['p99_ms']:7.2f} ms  {note}", flush=True)
    return {"row": name, **report, "note": note}


def measure(name, database, args):
    server = Portico(database, args.users)
    rows = []
    try:
        users = [server.user(n) for n in range(args.users)]
        cores = os.cpu_count()
        floor = json.loads(subprocess.check_output([TOOLS, "argon2", "19456", "2", "1", str(cores), str(args.seconds)]))
        print(f"{name}: raw Argon2id of the library on {cores} threads: {floor['per_second']:.0f}/s, {floor['ms_each']:.1f} ms each")
        login = drive(server, [LOGIN], users, 16, args.seconds)
        share = login["per_second"] / floor["per_second"]
        rows.append(row(f"{name} password login", login, f"{share:.2f} of the raw rate (owed 0.90)"))
        # The sessions of before are replaced by these logins.
        users = [{**user, **fresh(server, user)} for user in users]
        idle = drive(server, [REFRESH], users, 16, args.seconds)
        rows.append(row(f"{name} refresh", idle, "owed 2,500/s, 400 µs"))
        rows.append(row(f"{name} SMS login", sms_logins(server, args.users), "owed 1,000/s, 1,000 µs"))
        users = [{**user, **fresh(server, user)} for user in users]
        plain = drive(server, [OPEN], users, 16, args.seconds)
        known = drive(server, [KNOWN], users, 16, args.seconds)
        rows.append(row(f"{name} public route without a token", plain))
        rows.append(row(f"{name} the same with a token", known,
                        f"{(known['cpu_ms'] - plain['cpu_ms']) * 1e3:+.1f} µs (owed 2 when remembered)"))
        rows += flood(name, server, users, args)
        print(f"{name}: {server.rss_mb():.0f} MB resident after all of it")
    finally:
        server.stop()
    return rows


def sms_logins(server, count, rounds=20):
    """Everybody asks for a code, which is not measured, and then everybody logs in with it at once."""
    phones = [{"phone": f"+86138{number:08}", "device_id": f"phone-{number:04}"} for number in range(count)]

    def send(user):
        asked = {"phone": user["phone"], "device_id": user["device_id"]}
        user["transaction"] = server.call("POST", SEND, asked)["transaction_id"]

    for user in phones:
        send(user)
        first = {"transaction_id": user["transaction"], "code": "135790",
                 "device": {"device_id": user["device_id"], "platform": "cli"}}
        user["secret"] = server.call("POST", VERIFY, first)["tokens"]["device_secret"]
    reports = []
    for _ in range(rounds):
        for user in phones:
            send(user)
        reports.append(drive(server, [SMS], phones, count, 60, turns=1))
    done, seconds = (sum(r[key] for r in reports) for key in ("done", "seconds"))
    middle = {key: sorted(r[key] for r in reports)[rounds // 2] for key in ("p50_ms", "p99_ms", "max_ms", "cpu_ms")}
    return {"done": done, "failed": 0, "seconds": seconds, "per_second": done / seconds, **middle}


def fresh(server, user):
    """A new session on the user's device: the refresh token of a former run is of the past."""
    answer = server.call("POST", "/api/identity/login/password", {
        "identifier": user["identifier"], "password": PASSWORD,
        "device": {"device_id": user["device_id"], "device_secret": user["secret"], "platform": "cli"}})
    return {"refresh": answer["tokens"]["refresh_token"], "access": answer["tokens"]["access_token"]}


def flood(name, server, users, args):
    """Refreshes and requests at the door, alone and beside as many logins as can be."""
    half = len(users) // 2
    rows = []
    for what, steps in (("refresh", [REFRESH]), ("door", [KNOWN])):
        mine = [{**user, **fresh(server, user)} for user in users[:8]]
        alone = drive(server, steps, mine, 8, args.seconds)
        mine = [{**user, **fresh(server, user)} for user in users[:8]]
        others = start(server, [LOGIN], users[half:], half, args.seconds + 2)
        beside = drive(server, steps, mine, 8, args.seconds)
        others.communicate()
        rows.append(row(f"{name} {what} alone, 8 clients", alone))
        rows.append(row(f"{name} {what} beside a flood of logins", beside,
                        f"p99 × {beside['p99_ms'] / max(alone['p99_ms'], 0.001):.1f} (owed 1.5)"))
    return rows


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--users", type=int, default=64)
    parser.add_argument("--no-write", action="store_true", help="leave bench/results alone")
    args = parser.parse_args()
    rows = measure("SQLite", None, args)
    if os.environ.get("BENCH_DATABASE"):
        rows += measure("PostgreSQL", os.environ["BENCH_DATABASE"], args)
    else:
        print("BENCH_DATABASE names no PostgreSQL: its rows are left out")
    if args.no_write:
        return
    out = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "results", "identity.json")
    with open(out, "w") as f:
        json.dump({"cores": os.cpu_count(), "seconds": args.seconds, "rows": rows}, f, indent=1, ensure_ascii=False)
        f.write("\n")


main()
