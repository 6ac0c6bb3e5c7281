"""The programs under measurement: started privately on free ports, ended with the bench."""

import base64
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request

PROXY_CORE = "0"
CLIENT_CORE = "1"


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_for(port, seconds=15):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            socket.create_connection(("127.0.0.1", port), 0.2).close()
            return
        except OSError:
            time.sleep(0.02)
    raise SystemExit(f"nothing listens on port {port}")


def find(program, *places):
    for place in (shutil.which(program), *places):
        if place and os.path.exists(place):
            return place
    return None


class Program:
    """A process tree whose CPU time and memory can be read."""

    def __init__(self, name, argv, core, env=None, stdout=subprocess.DEVNULL):
        self.name = name
        self.process = subprocess.Popen(
            ["taskset", "-c", core, *argv],
            stdout=stdout,
            stderr=open(os.environ.get("BENCH_LOG", os.devnull), "ab"),
            env={**os.environ, **(env or {})},
            start_new_session=True,
        )

    def pids(self):
        root = self.process.pid
        found, todo = [], [root]
        while todo:
            pid = todo.pop()
            found.append(pid)
            try:
                with open(f"/proc/{pid}/task/{pid}/children") as f:
                    todo.extend(int(p) for p in f.read().split())
            except OSError:
                pass
        return found

    def cpu_seconds(self):
        """User and system time of the tree, from /proc/<pid>/schedstat where it is finer."""
        total = 0.0
        for pid in self.pids():
            try:
                for task in os.listdir(f"/proc/{pid}/task"):
                    with open(f"/proc/{pid}/task/{task}/schedstat") as f:
                        total += int(f.read().split()[0]) / 1e9
            except OSError:
                pass
        return total

    def user_system(self):
        user = system = 0
        for pid in self.pids():
            try:
                with open(f"/proc/{pid}/stat") as f:
                    fields = f.read().rsplit(")", 1)[1].split()
                user += int(fields[11])
                system += int(fields[12])
            except OSError:
                pass
        tick = os.sysconf("SC_CLK_TCK")
        return user / tick, system / tick

    def rss_kb(self):
        total = 0
        for pid in self.pids():
            try:
                with open(f"/proc/{pid}/status") as f:
                    for line in f:
                        if line.startswith("VmRSS:"):
                            total += int(line.split()[1])
            except OSError:
                pass
        return total

    def stop(self):
        try:
            os.killpg(self.process.pid, signal.SIGTERM)
            self.process.wait(10)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            try:
                os.killpg(self.process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            self.process.wait()


class Lab:
    """Everything that one run needs, in one temporary folder."""

    def __init__(self, workers=1):
        self.dir = tempfile.mkdtemp(prefix="portico-bench-")
        os.chmod(self.dir, 0o755)
        self.programs = []
        self.workers = workers
        self.cores = PROXY_CORE if workers == 1 else "0,1"
        www = os.path.join(self.dir, "www")
        os.makedirs(www)
        for name, size in (("1k", 1024), ("100k", 100 * 1024), ("200m", 200 * 1024 * 1024)):
            with open(os.path.join(www, name), "wb") as f:
                f.write(b"x" * size)
        self.upstream_port = free_port()
        self.upstream = self.nginx(
            "upstream",
            self.upstream_port,
            f"root {www};",
            CLIENT_CORE,
        )
        wait_for(self.upstream_port)

    def start(self, program):
        self.programs.append(program)
        return program

    def close(self):
        for program in reversed(self.programs):
            program.stop()
        shutil.rmtree(self.dir, ignore_errors=True)

    def nginx(self, name, port, location, core, extra=""):
        folder = os.path.join(self.dir, name)
        os.makedirs(folder)
        conf = os.path.join(folder, "nginx.conf")
        with open(conf, "w") as f:
            f.write(
                f"""
daemon off; worker_processes {self.workers if name != 'upstream' else 1}; pid {folder}/pid; error_log {folder}/error.log crit;
worker_rlimit_nofile 65536;
events {{ worker_connections 20000; }}
http {{
  access_log off; sendfile on; tcp_nodelay on; keepalive_requests 100000000; keepalive_timeout 75s;
  client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  {extra}
  server {{ listen 127.0.0.1:{port} reuseport backlog=4096; location / {{ {location} }} }}
}}
"""
            )
        binary = find("nginx", "/usr/sbin/nginx")
        return self.start(Program(name, [binary, "-c", conf, "-e", f"{folder}/error.log"], core))

    def nginx_proxy(self):
        port = free_port()
        program = self.nginx(
            "nginx",
            port,
            "proxy_pass http://up; proxy_http_version 1.1; proxy_set_header Connection '';"
            " proxy_set_header Host $host; proxy_set_header X-Forwarded-For $remote_addr;"
            " proxy_buffering on;",
            self.cores,
            f"upstream up {{ server 127.0.0.1:{self.upstream_port}; keepalive 256; keepalive_requests 100000000; }}",
        )
        wait_for(port)
        return program, port

    def haproxy(self):
        binary = find("haproxy", "/usr/sbin/haproxy")
        if not binary:
            return None, None
        port = free_port()
        conf = os.path.join(self.dir, "haproxy.cfg")
        with open(conf, "w") as f:
            f.write(
                f"""
global
  maxconn 9000
  nbthread {self.workers}
defaults
  mode http
  timeout connect 2s
  timeout client 75s
  timeout server 60s
  option http-keep-alive
  http-reuse always
frontend f
  bind 127.0.0.1:{port}
  option forwardfor
  default_backend b
backend b
  server s 127.0.0.1:{self.upstream_port} pool-max-conn 256
"""
            )
        program = self.start(Program("haproxy", [binary, "-f", conf, "-db"], self.cores))
        wait_for(port)
        return program, port

    def portico(self, name, full=False):
        """Portico with the upstream registered as a service; `full` switches every check on."""
        binary = os.environ["PORTICO_BIN"]
        data = os.path.join(self.dir, name)
        os.makedirs(data)
        settings = {
            "gateway.access_log": "all" if full else "off",
            "gateway.limit.loopback": full,
            "gateway.limit.address_per_s": 1_000_000 if full else 100,
            "gateway.limit.user_per_s": 1_000_000 if full else 50,
            "gateway.limit.user_concurrent": 1_000 if full else 50,
        }
        jwks = os.path.join(data, "jwks.json")
        token = None
        lines = [f"[node]\nworkers = {self.workers}\ndemo = false\n"]
        lines.append("[telemetry.log]\ntarget = \"file\"\n")
        if full:
            token = make_token(data, jwks)
            lines.append(
                f'[auth]\njwks_file = "{jwks}"\nissuer = "https://bench.example"\naudience = "portico"\n'
            )
        lines.append("[settings]\n" + "\n".join(f"{json.dumps(k)} = {json.dumps(v)}" for k, v in settings.items()))
        config = os.path.join(data, "portico.toml")
        with open(config, "w") as f:
            f.write("\n".join(lines))
        argv = [binary, "--config", config, "--data-dir", os.path.join(data, "data"), "--ready-json"]
        for listener in ("--listen", "--consul-listen", "--admin-listen"):
            argv += [listener, "127.0.0.1:0"]
        program = self.start(Program(name, argv, self.cores, stdout=subprocess.PIPE))
        ready = json.loads(program.process.stdout.readline())
        with open(os.path.join(data, "data", "operator.token")) as f:
            header = f.read().strip().split(": ", 1)
        body = {
            "name": "bench",
            "version": "1.0.0",
            "host": "127.0.0.1",
            "port": self.upstream_port,
            "default_access": "authenticated" if full else "public",
            "heartbeat_s": 300,
            "endpoints": [{"path": "/cached/*", "is_public": True, "cache": {"ttl_s": 3600}}],
        }
        request = urllib.request.Request(
            ready["http"] + "/api/registry/register",
            json.dumps(body).encode(),
            {header[0]: header[1], "Content-Type": "application/json"},
        )
        urllib.request.urlopen(request).read()
        return program, int(ready["http"].rsplit(":", 1)[1]), token


def make_token(folder, jwks):
    """An EdDSA access token and its key set, made with openssl."""
    key, public, message, signature = (os.path.join(folder, n) for n in ("k.pem", "p.der", "m", "s"))
    run = lambda *a: subprocess.run(a, check=True, capture_output=True)
    run("openssl", "genpkey", "-algorithm", "ed25519", "-out", key)
    run("openssl", "pkey", "-in", key, "-pubout", "-outform", "DER", "-out", public)
    b64 = lambda b: base64.urlsafe_b64encode(b).rstrip(b"=").decode()
    with open(public, "rb") as f:
        x = b64(f.read()[-32:])
    kid = b64(hashlib.sha256(json.dumps({"crv": "Ed25519", "kty": "OKP", "x": x}, separators=(",", ":")).encode()).digest())
    with open(jwks, "w") as f:
        json.dump({"keys": [{"kty": "OKP", "crv": "Ed25519", "x": x, "kid": kid, "alg": "EdDSA", "use": "sig"}]}, f)
    now = int(time.time())
    head = b64(json.dumps({"alg": "EdDSA", "typ": "at+jwt", "kid": kid}).encode())
    claims = b64(
        json.dumps(
            {
                "iss": "https://bench.example", "aud": ["portico"], "sub": "bench-user",
                "tid": "00000000-0000-7000-8000-000000000002", "sid": "bench-session", "jti": "1",
                "iat": now, "nbf": now, "exp": now + 86400, "roles": ["user"], "aal": 1,
            }
        ).encode()
    )
    with open(message, "w") as f:
        f.write(f"{head}.{claims}")
    run("openssl", "pkeyutl", "-sign", "-rawin", "-inkey", key, "-in", message, "-out", signature)
    with open(signature, "rb") as f:
        return f"{head}.{claims}.{b64(f.read())}"
