"""The programs under measurement: started privately on free ports, ended with the bench."""

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


def cpu_seconds(pid):
    total = 0.0
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/schedstat") as f:
                total += int(f.read().split()[0]) / 1e9
    except OSError:
        pass
    return total


def resident_kb(pid):
    try:
        with open(f"/proc/{pid}/status") as f:
            for line in f:
                if line.startswith("VmRSS:"):
                    return int(line.split()[1])
    except OSError:
        pass
    return 0


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
        """User and system time of the tree, finer than the clock's ticks."""
        return sum(cpu_seconds(pid) for pid in self.pids())

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
        return sum(resident_kb(pid) for pid in self.pids())

    def own_rss_kb(self):
        """Of the process alone, without the children that it started."""
        return resident_kb(self.process.pid)

    def own_cpu_seconds(self):
        return cpu_seconds(self.process.pid)

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


class Portico:
    """A running gateway in front of the upstream."""

    def __init__(self, program, ready, header, token):
        self.program, self.url, self.header, self.token = program, ready["http"], header, token
        self.place = (program, int(self.url.rsplit(":", 1)[1]))


class Lab:
    """Everything that one run needs, in one temporary folder."""

    def __init__(self, workers=1):
        self.dir = tempfile.mkdtemp(prefix="portico-bench-")
        os.chmod(self.dir, 0o755)
        self.programs = []
        self.enrolled = []
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
daemon off; worker_processes {self.workers if name == 'nginx' else 1}; pid {folder}/pid; error_log {folder}/error.log crit;
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

    def portico(self, name, full=False, access_log="sampled"):
        """Portico with the upstream registered as a service; `full` switches every check on."""
        data = os.path.join(self.dir, name)
        os.makedirs(data)
        settings = {
            "gateway.access_log": access_log if full else "off",
            "gateway.limit.loopback": full,
            "gateway.limit.address_per_s": 1_000_000 if full else 100,
            "gateway.limit.user_per_s": 1_000_000 if full else 50,
            "gateway.limit.user_concurrent": 1_000 if full else 50,
        }
        if full:
            # A run is longer than tokens usually live.
            settings["identity.token.access_ttl_s"] = 86_400
        lines = [f"[node]\nworkers = {self.workers}\ndemo = false\n"]
        lines.append("[telemetry.log]\ntarget = \"file\"\n")
        lines.append("[settings]\n" + "\n".join(f"{json.dumps(k)} = {json.dumps(v)}" for k, v in settings.items()))
        config = os.path.join(data, "portico.toml")
        with open(config, "w") as f:
            f.write("\n".join(lines))
        argv = [*self.serve(os.path.join(data, "data")), "--config", config]
        program = self.start(Program(name, argv, self.cores, stdout=subprocess.PIPE))
        ready = json.loads(program.process.stdout.readline())
        with open(os.path.join(data, "data", "operator.token")) as f:
            header = f.read().strip().split(": ", 1)
        token = self.enter(ready["http"]) if full else None
        portico = Portico(program, ready, header, token)
        self.enrol(portico.url, header, self.upstream_port, "authenticated" if full else "public")
        return portico

    def enter(self, url):
        """A user of the house; gives the access token of the login that a registration is."""
        body = {
            "method": "username",
            "identifier": "bench-user",
            "password": "a-long-walk-by-the-river-4",
            "device": {"platform": "cli", "name": "bench"},
        }
        answer = self.operate("POST", url + "/api/identity/register", ("Accept", "application/json"), body)
        return answer["tokens"]["access_token"]

    def serve(self, data):
        argv = [os.environ["PORTICO_BIN"], "--data-dir", data, "--ready-json"]
        for listener in ("--listen", "--consul-listen", "--admin-listen", "--grpc-listen", "--internal-listen"):
            argv += [listener, "127.0.0.1:0"]
        return argv

    def enrol(self, url, header, port, access):
        body = {
            "name": "bench",
            "version": "1.0.0",
            "host": "127.0.0.1",
            "port": port,
            "default_access": access,
            "heartbeat_s": 300,
            "endpoints": [{"path": "/cached/*", "is_public": True, "cache": {"ttl_s": 3600}}],
        }
        answer = self.operate("POST", url + "/api/registry/register", header, body)
        self.enrolled.append((url, header, answer["id"]))

    def heartbeat(self):
        """A run is longer than a silent instance is believed."""
        for url, header, instance in self.enrolled:
            self.operate("POST", url + "/api/registry/heartbeat", header, {"service_id": instance})

    def operate(self, method, url, header, body):
        data = json.dumps(body).encode()
        headers = {header[0]: header[1], "Content-Type": "application/json"}
        request = urllib.request.Request(url, data, headers, method=method)
        return json.loads(urllib.request.urlopen(request).read())

    def cached_file(self):
        folder = os.path.join(self.dir, "www", "cached")
        os.makedirs(folder, exist_ok=True)
        with open(os.path.join(folder, "1k"), "wb") as f:
            f.write(b"x" * 1024)

    def bare_hyper(self):
        port = free_port()
        argv = [os.environ["PORTICO_BENCH_BIN"], "answer", f"127.0.0.1:{port}", "0"]
        program = self.start(Program("hyper", argv, PROXY_CORE))
        wait_for(port)
        return program, port

    def bare_portico(self, name, first):
        """A start with nothing configured, on an empty data directory or the one of the last start."""
        data = os.path.join(self.dir, name)
        if first:
            shutil.rmtree(data, ignore_errors=True)
        argv = [*self.serve(data), "--no-demo"]
        begun = time.monotonic()
        with open(os.devnull, "wb") as nothing:
            # Logs go to standard output too, so that the ready line is looked for.
            env = {**os.environ, "PORTICO__TELEMETRY__LOG__TARGET": "file"}
            process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=nothing, env=env)
        return process, begun

    def idle_portico(self):
        """With everything on, demo included, and nobody asking."""
        env = {"PORTICO__TELEMETRY__LOG__TARGET": "file"}
        argv = self.serve(os.path.join(self.dir, "idle"))
        return self.start(Program("idle", argv, "0,1", env=env))

    def second_instance(self, url, header):
        """Registers an instance that the caller starts and ends as it likes; gives its port."""
        self.flapping, self.flapping_port = None, free_port()
        self.start_flapping()
        wait_for(self.flapping_port)
        self.enrol(url, header, self.flapping_port, "authenticated")
        return self.flapping_port

    def start_flapping(self):
        if self.flapping is None:
            shutil.rmtree(os.path.join(self.dir, "flapping"), ignore_errors=True)
            root = f"root {self.dir}/www;"
            self.flapping = self.nginx("flapping", self.flapping_port, root, CLIENT_CORE)

    def end_flapping(self):
        """As if the machine had lost it: nobody says goodbye."""
        if self.flapping is not None:
            os.killpg(self.flapping.process.pid, signal.SIGKILL)
            self.flapping.process.wait()
            self.programs.remove(self.flapping)
            self.flapping = None
