"""gRPC through the door with grpcio on both sides: what a client sees is what it sees without the door."""

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from concurrent import futures

import grpc

MEGABYTE = 1024 * 1024
LARGE = [("grpc.max_receive_message_length", 8 * MEGABYTE), ("grpc.max_send_message_length", 8 * MEGABYTE)]


class Service(grpc.GenericRpcHandler):
    """Answers by the method's name; messages are bytes."""

    def __init__(self):
        self.cancelled = threading.Event()

    def service(self, details):
        name = details.method.rsplit("/", 1)[-1]
        handler, kind = {
            "Echo": (self.echo, grpc.unary_unary_rpc_method_handler),
            "Fail": (self.fail, grpc.unary_unary_rpc_method_handler),
            "Slow": (self.slow, grpc.unary_unary_rpc_method_handler),
            "Count": (self.count, grpc.unary_stream_rpc_method_handler),
            "Sum": (self.sum, grpc.stream_unary_rpc_method_handler),
            "Talk": (self.talk, grpc.stream_stream_rpc_method_handler),
            "Endless": (self.endless, grpc.unary_stream_rpc_method_handler),
        }.get(name, (None, None))
        return handler and kind(handler)

    def echo(self, request, context):
        told = dict(context.invocation_metadata())
        context.send_initial_metadata([("x-first", told.get("x-asked", "")), ("x-raw-bin", b"\x00\xff")])
        context.set_trailing_metadata([("x-last", "1"), ("x-last-bin", told.get("x-asked-bin", b""))])
        return request

    def fail(self, request, context):
        context.set_trailing_metadata([("x-why", "because")])
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not now: ünder way %")

    def slow(self, request, context):
        time.sleep(5)
        return request

    def count(self, request, context):
        for n in range(int(request)):
            yield str(n).encode()

    def sum(self, requests, context):
        return str(sum(len(r) for r in requests)).encode()

    def talk(self, requests, context):
        for request in requests:
            yield request[::-1]

    def endless(self, request, context):
        context.add_callback(self.cancelled.set)
        n = 0
        while context.is_active():
            yield str(n).encode()
            n += 1
            time.sleep(0.01)


class Caller:
    """The same calls, by whatever way."""

    def __init__(self, address, prefix):
        self.channel = grpc.insecure_channel(address, LARGE)
        self.prefix = prefix

    def __getattr__(self, kind):
        made = getattr(self.channel, kind)
        return lambda name: made(f"{self.prefix}/test.Calls/{name}", request_serializer=bytes, response_deserializer=bytes)


def status_of(call):
    try:
        call()
    except grpc.RpcError as error:
        return error.code(), error.details(), dict(error.trailing_metadata() or ())
    return grpc.StatusCode.OK, "", {}


def unary(caller, _):
    answer, call = caller.unary_unary("Echo").with_call(b"hello", timeout=10, metadata=[("x-asked", "a"), ("x-asked-bin", b"\x01\x02")])
    first, last = dict(call.initial_metadata()), dict(call.trailing_metadata())
    return answer, first["x-first"], first["x-raw-bin"], last["x-last"], last["x-last-bin"], call.code()


def empty(caller, _):
    return caller.unary_unary("Echo")(b"", timeout=10)


def large(caller, _):
    body = os.urandom(4 * MEGABYTE - 100)
    return caller.unary_unary("Echo")(body, timeout=30) == body


def too_large(caller, _):
    code, _, _ = status_of(lambda: caller.unary_unary("Echo")(b"x" * (9 * MEGABYTE), timeout=30))
    return code


def server_stream(caller, _):
    return list(caller.unary_stream("Count")(b"1000", timeout=30))[-1], len(list(caller.unary_stream("Count")(b"0", timeout=10)))


def client_stream(caller, _):
    return caller.stream_unary("Sum")((b"x" * n for n in range(1000)), timeout=30)


def both_streams(caller, _):
    sent = [str(n).encode() for n in range(500)]
    return [r[::-1] for r in caller.stream_stream("Talk")(iter(sent), timeout=30)] == sent


def ping_pong(caller, _):
    """Each message waits for the answer to the one before: nothing is held back."""
    answered, pieces = threading.Semaphore(1), []

    def requests():
        for n in range(20):
            answered.acquire(timeout=10)
            yield f"{n:03}".encode()

    for answer in caller.stream_stream("Talk")(requests(), timeout=30):
        pieces.append(answer)
        answered.release()
    return pieces


def trailers_only(caller, _):
    """An answer without a body has one block of fields, in which the door's own stand as well."""
    code, details, fields = status_of(lambda: caller.unary_unary("Fail")(b"", timeout=10))
    return code, details, fields.get("x-why")


def unknown_method(caller, _):
    return status_of(lambda: caller.unary_unary("Nothing")(b"", timeout=10))[0]


def deadline(caller, _):
    begun = time.monotonic()
    code = status_of(lambda: caller.unary_unary("Slow")(b"", timeout=0.5))[0]
    return code, time.monotonic() - begun < 4


def cancel(caller, service):
    service.cancelled.clear()
    call = caller.unary_stream("Endless")(b"", timeout=30)
    first = [next(call) for _ in range(3)]
    call.cancel()
    return first, service.cancelled.wait(10)


def many_at_once(caller, _):
    echo = caller.unary_unary("Echo")
    calls = [echo.future(str(n).encode(), timeout=30) for n in range(300)]
    return [c.result() for c in calls] == [str(n).encode() for n in range(300)]


CASES = [
    unary, empty, large, too_large, server_stream, client_stream, both_streams, ping_pong, trailers_only, unknown_method,
    deadline, cancel, many_at_once,
]  # fmt: skip


def house(folder, grpc="127.0.0.1:0", more=()):
    flags = ["--ready-json", "--no-demo", "--data-dir", os.path.join(folder, "data"), "--grpc-listen", grpc, *more]
    for name in ("listen", "consul-listen", "admin-listen", "internal-listen"):
        flags += [f"--{name}", "127.0.0.1:0"]
    log = open(os.path.join(folder, "log"), "w")
    process = subprocess.Popen([os.environ["PORTICO_BINARY"], "serve", *flags], cwd=folder, stdout=subprocess.PIPE, stderr=log, text=True)
    for line in process.stdout:
        if '"event":"ready"' in line:
            threading.Thread(target=lambda: [None for _ in process.stdout], daemon=True).start()
            return process, json.loads(line)["http"]
    sys.exit("the process did not start")


def register(folder, url, port):
    with open(os.path.join(folder, "data", "operator.token")) as f:
        token = f.read().strip().removeprefix("Authorization: ")
    body = {"name": "calls", "version": "1.0.0", "host": "127.0.0.1", "port": port, "protocol": "h2c", "default_access": "public"}
    headers = {"Authorization": token, "Content-Type": "application/json"}
    request = urllib.request.Request(f"{url}/api/registry/register", json.dumps(body).encode(), headers, method="POST")
    urllib.request.urlopen(request, timeout=10).read()


def main():
    server = grpc.server(futures.ThreadPoolExecutor(32), options=LARGE)
    service = Service()
    server.add_generic_rpc_handlers((service,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    bad = 0
    with tempfile.TemporaryDirectory() as folder:
        process, url = house(folder)
        try:
            register(folder, url, port)
            direct = Caller(f"127.0.0.1:{port}", "")
            through = Caller(url.removeprefix("http://"), "/api/calls")
            for case in CASES:
                wanted = case(direct, service)
                try:
                    got = case(through, service)
                except Exception as error:  # a failure of one case must not hide the others
                    got = repr(error)
                right = got == wanted
                bad += not right
                print(f"{'ok  ' if right else 'FAIL'} {case.__name__}" + ("" if right else f": {got!r:.300} instead of {wanted!r:.300}"))
            # What is wrong at the door itself is said in gRPC's words.
            nobody = status_of(lambda: Caller(url.removeprefix("http://"), "/api/nobody").unary_unary("Echo")(b"", timeout=10))
            right = nobody[0] == grpc.StatusCode.UNIMPLEMENTED
            bad += not right
            print(f"{'ok  ' if right else 'FAIL'} a service that nobody knows: {nobody[0]}")
        finally:
            process.terminate()
            process.wait(40)
            server.stop(0)
    print(f"gRPC with grpcio {grpc.__version__}: {len(CASES) + 1 - bad} of {len(CASES) + 1}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
