#!/usr/bin/env python3
"""Does time tell whether an account exists? (ID-33)

Sends pairs of requests, one about somebody who exists and one about nobody, in random order over one connection,
and prints both distributions with the p value of the Mann-Whitney test. A look, not a gate: a busy machine finds
differences where there are none, and the proof that both paths do the same work is a test
(`known_and_unknown_names_cost_the_same_work`, `whether_a_number_is_known_shows_in_nothing`).

Without --url it starts the binary named by PORTICO_BINARY (or target/debug/portico) on a folder of its own, with
limits out of the way. With --url and --token-file it attacks a running house, whose limits then have to be wide and
whose mails have to come to the port given by --smtp-port.
"""

import argparse
import email
import http.client
import json
import math
import os
import pathlib
import random
import re
import socket
import socketserver
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse

WIDE = '["1000000/min"]'
CONFIG = """
[node]
dev = true
demo = false
[listen]
http = "127.0.0.1:0"
consul = "127.0.0.1:0"
admin = "127.0.0.1:0"
grpc = "127.0.0.1:0"
internal = "127.0.0.1:0"
[settings]
"mail.smtp.host" = "127.0.0.1"
"mail.smtp.port" = {smtp}
"mail.smtp.tls" = "none"
"mail.from" = "id@example.com"
"identity.limit.password_per_address" = {wide}
"identity.limit.registration_per_address" = {wide}
"identity.limit.username_per_address" = {wide}
"identity.limit.reset_per_address" = {wide}
"identity.limit.reset_per_account" = {wide}
"identity.limit.account_failures" = "100000/min"
"identity.stuffing.pairs" = 1000
"identity.sms.limit.phone" = {wide}
"identity.sms.limit.ip" = {wide}
"identity.sms.limit.net" = {wide}
"identity.sms.limit.prefix" = {wide}
"identity.sms.limit.device" = {wide}
"identity.sms.budget.hour" = 100000
"identity.sms.budget.day" = 100000
"identity.sms.min_conversion_percent" = 0
"""
PASSWORD = "quartz lantern 88 ferry"


class Mail(socketserver.StreamRequestHandler):
    """A mail server that keeps what it gets."""

    got = []

    def handle(self):
        say = lambda line: self.wfile.write(line.encode() + b"\r\n")
        say("220 here")
        while line := self.rfile.readline():
            word = line.strip().upper()
            if word == b"DATA":
                say("354 go on")
                text = b""
                while (line := self.rfile.readline()).strip() != b".":
                    text += line
                Mail.got.append(text)
                say("250 taken")
            elif word == b"QUIT":
                say("221 bye")
                return
            else:
                say("250 yes")


class MailServer(socketserver.ThreadingMixIn, socketserver.TCPServer):
    daemon_threads = True
    allow_reuse_address = True


class House:
    """The real binary on a folder of its own."""

    def __init__(self, folder, smtp):
        folder = pathlib.Path(folder)
        (folder / "portico.toml").write_text(CONFIG.format(smtp=smtp, wide=WIDE))
        binary = os.environ.get("PORTICO_BINARY", "target/debug/portico")
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PORTICO_")}
        with open(folder / "log", "w") as log:
            self.process = subprocess.Popen(
                [os.path.realpath(binary), "--ready-json", "--data-dir", str(folder / "data")],
                cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT,
            )
        self.url = None
        while self.url is None:
            if self.process.poll() is not None:
                sys.exit((folder / "log").read_text()[-4000:])
            time.sleep(0.05)
            for line in (folder / "log").read_text().splitlines():
                if '"event":"ready"' in line.replace(" ", ""):
                    self.url = json.loads(line)["http"]
        self.token = token_of(folder / "data/operator.token")

    def stop(self):
        self.process.terminate()
        self.process.wait(timeout=60)


def mailed(count):
    """To whom the mails so far went, and the tokens of their links, once there are so many."""
    end = time.monotonic() + 120
    while len(Mail.got) < count and time.monotonic() < end:
        time.sleep(0.05)
    links = {}
    for text in Mail.got:
        mail = email.message_from_bytes(text)
        part = next(part for part in mail.walk() if part.get_content_type() == "text/plain")
        found = re.search(r"#([A-Za-z0-9_-]{20,})", part.get_payload(decode=True).decode())
        links[mail["to"].strip("<>")] = found and found.group(1)
    return links


def token_of(file):
    return pathlib.Path(file).read_text().strip().rsplit(" ", 1)[-1]


class Client:
    """One connection, so that its making is in no figure."""

    def __init__(self, url):
        parts = urllib.parse.urlsplit(url)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self.connection = kind(parts.netloc, timeout=60)
        self.connection.connect()
        self.connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def post(self, path, body, token=None):
        """Status, body, and milliseconds until the last byte."""
        headers = {"content-type": "application/json"}
        if token:
            headers["authorization"] = f"Bearer {token}"
        data = json.dumps(body)
        began = time.perf_counter()
        self.connection.request("POST", f"/api/identity/{path}", data, headers)
        answer = self.connection.getresponse()
        text = answer.read()
        return answer.status, text, (time.perf_counter() - began) * 1000


def mann_whitney(a, b):
    """Two-sided p value by the normal approximation with ties, and how often `a` is the slower one."""
    order = sorted([(x, 0) for x in a] + [(x, 1) for x in b])
    ranks, ties, i = 0.0, 0.0, 0
    while i < len(order):
        j = i
        while j < len(order) and order[j][0] == order[i][0]:
            j += 1
        ranks += sum(1 for k in range(i, j) if order[k][1] == 0) * (i + j + 1) / 2
        ties += (j - i) ** 3 - (j - i)
        i = j
    n, m = len(a), len(b)
    u = ranks - n * (n + 1) / 2
    spread = math.sqrt(n * m / 12 * ((n + m + 1) - ties / ((n + m) * (n + m - 1))))
    z = (abs(u - n * m / 2) - 0.5) / spread if spread else 0.0
    return math.erfc(max(z, 0.0) / math.sqrt(2)), u / (n * m)


def told(name, values):
    cut = statistics.quantiles(values, n=20)
    return (f"  {name:<8} n {len(values)}  p5 {cut[0]:8.3f}  p25 {cut[4]:8.3f}  median {cut[9]:8.3f}  "
            f"p75 {cut[14]:8.3f}  p95 {cut[18]:8.3f}  mean {statistics.fmean(values):8.3f} ms")


def attack(client, title, path, pairs, dice):
    """Sends the pairs; prints what an attacker with a stop watch sees."""
    times, answers = {"known": [], "unknown": []}, {"known": set(), "unknown": set()}
    for known, unknown in pairs:
        both = [("known", known), ("unknown", unknown)]
        dice.shuffle(both)
        for who, body in both:
            status, text, ms = client.post(path, body)
            times[who].append(ms)
            answers[who].add((status, len(text)))
    p, slower = mann_whitney(times["known"], times["unknown"])
    print(f"{title}: POST /api/identity/{path}")
    for who, values in times.items():
        print(told(who, values))
    same = "the same" if answers["known"] == answers["unknown"] else f"DIFFERENT: {answers}"
    print(f"  Mann-Whitney p = {p:.3f}; the known one is the slower one in {slower:.1%} of all pairs; "
          f"statuses and lengths {same}: {sorted(answers['known'])}\n", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", help="a running house; without it one is started")
    parser.add_argument("--token-file", help="operator.token of that house")
    parser.add_argument("--smtp-port", type=int, default=0, help="where its mails come")
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=3)
    options = parser.parse_args()
    dice = random.Random(options.seed)
    mail = MailServer(("127.0.0.1", options.smtp_port), Mail)
    threading.Thread(target=mail.serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory() as folder:
        house = None if options.url else House(folder, mail.server_address[1])
        try:
            url = options.url or house.url
            everything(Client(url), house.token if house else token_of(options.token_file), options.pairs, dice)
        finally:
            if house:
                house.stop()


def everything(client, operator, count, dice):
    run = f"{dice.getrandbits(32):08x}"
    device = {"platform": "cli"}
    digits = dice.sample(range(10_000_000), 2 * count)
    begin = len(Mail.got)
    for n in range(count):
        new = {"password": PASSWORD, "device": device}
        made = [
            client.post("register", new | {"method": "username", "identifier": f"k{run}{n}"}),
            client.post("register", new | {"method": "email", "identifier": f"k{run}{n}@example.com"}),
            client.post("users", {"username": f"p{run}{n}", "phone": f"+86138{digits[n]:08d}"}, operator),
        ]
        if [answer[0] for answer in made] != [201, 202, 201]:
            sys.exit(f"no accounts to attack: {made}")
    links = mailed(begin + count)
    verified = [client.post("email/verify", {"token": links[f"k{run}{n}@example.com"]})[0] for n in range(count)]
    if set(verified) != {204}:
        sys.exit(f"addresses were not verified: {set(verified)}")
    login = lambda name: {"identifier": name, "password": "wrong password 1", "device": device}
    reset = lambda name: {"identifier": name}
    code = lambda n: {"phone": f"+86138{digits[n]:08d}"}
    register = lambda name: {"method": "email", "identifier": name, "password": PASSWORD, "device": device}
    each = range(count)
    attack(client, "login by name", "login/password",
           [(login(f"k{run}{n}"), login(f"u{run}{n}")) for n in each], dice)
    attack(client, "login by address", "login/password",
           [(login(f"k{run}{n}@example.com"), login(f"u{run}{n}@example.com")) for n in each], dice)
    attack(client, "password reset", "password/reset",
           [(reset(f"k{run}{n}@example.com"), reset(f"u{run}{n}@example.com")) for n in each], dice)
    mailed(begin + 2 * count)
    print(f"  mails: {len(Mail.got) - begin - count} to {count} known and {count} unknown addresses\n")
    attack(client, "code by message", "login/sms/send", [(code(n), code(count + n)) for n in each], dice)
    attack(client, "registration by address", "register",
           [(register(f"k{run}{n}@example.com"), register(f"n{run}{n}@example.com")) for n in each], dice)


if __name__ == "__main__":
    main()
