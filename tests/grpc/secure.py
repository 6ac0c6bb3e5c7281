"""The gRPC listener beyond loopback: TLS with the certificates of `tls`, plain calls and foreign names refused, the
start refused without a certificate (GW-10, GW-104)."""

import json
import os
import subprocess
import sys
import tempfile

import grpc
from interop import house

bad = 0


def check(what, right, seen=""):
    global bad
    bad += not right
    print(f"{'ok  ' if right else 'FAIL'} {what}" + ("" if right else f": {seen}"))


def call(channel, method="/grpc.health.v1.Health/Check"):
    """The health of the process, or the code of the refusal."""
    try:
        return channel.unary_unary(method)(b"", timeout=10)
    except grpc.RpcError as error:
        return error.code()


def pair(folder):
    """A certificate for `localhost` and its key."""
    key, cert = (os.path.join(folder, name) for name in ("key.pem", "cert.pem"))
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
                    "-keyout", key, "-out", cert, "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"],
                   check=True, capture_output=True)  # fmt: skip
    return cert, key


def main():
    with tempfile.TemporaryDirectory() as folder:
        cert, key = pair(folder)
        config = os.path.join(folder, "portico.toml")
        with open(config, "w") as f:
            f.write("[server]\nhosts = [\"box.lan\"]\n")
        flags = [os.environ["PORTICO_BINARY"], "serve", "--no-demo", "--config", config, "--data-dir", os.path.join(folder, "open")]
        refused = subprocess.run([*flags, "--grpc-listen", "0.0.0.0:0"], capture_output=True, text=True, timeout=60)
        check("beyond loopback there is no start without a certificate", refused.returncode == 2 and "listen.grpc" in refused.stderr,
              (refused.returncode, refused.stderr))  # fmt: skip
        with open(config, "a") as f:
            f.write(f"[tls]\ncert_file = {json.dumps(cert)}\nkey_file = {json.dumps(key)}\n")
        process, _ = house(folder, "0.0.0.0:0", ["--config", config])
        try:
            with open(os.path.join(folder, "data", "ready.json")) as f:
                url = json.load(f)["grpc"]
            check("the ready line says so", url.startswith("https://"), url)
            target = "localhost:" + url.rsplit(":", 1)[1]
            with open(cert, "rb") as f:
                trusted = grpc.ssl_channel_credentials(f.read())
            with grpc.secure_channel(target, trusted) as channel:
                check("with the certificate it is healthy", call(channel) == b"\x08\x01", call(channel))
                code = call(channel, "/portico.identity.v1.AuthService/VerifyToken")
                check("a service's method wants a credential", code == grpc.StatusCode.UNAUTHENTICATED, code)
            for name, wanted in (("box.lan", b"\x08\x01"), ("evil.example", grpc.StatusCode.PERMISSION_DENIED)):
                options = [("grpc.ssl_target_name_override", "localhost"), ("grpc.default_authority", name)]
                with grpc.secure_channel(target, trusted, options) as channel:
                    check(f"called as {name}", call(channel) == wanted, call(channel))
            with grpc.secure_channel(target, grpc.ssl_channel_credentials()) as channel:
                check("a certificate that nobody trusts is not", call(channel) == grpc.StatusCode.UNAVAILABLE, call(channel))
            with grpc.insecure_channel(target) as channel:
                check("in the clear there is no answer", call(channel) == grpc.StatusCode.UNAVAILABLE, call(channel))
        finally:
            process.terminate()
            clean = process.wait(40) == 0
        check("the stop is a clean one", clean)
    print(f"gRPC over TLS with grpcio {grpc.__version__}: {bad} failed")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
