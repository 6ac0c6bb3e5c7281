"""Mail of the real binary to a real server: STARTTLS and TLS with good and bad certificates, and downgrades (ID-143)."""

import asyncio
import datetime
import ipaddress
import json
import logging
import os
import ssl
import subprocess
import sys
import tempfile
import threading
import urllib.error
import urllib.request
import warnings

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

USER, PASSWORD = "portico", "correct horse battery"
bad = 0


def check(what, right, seen=""):
    global bad
    bad += not right
    print(f"{'ok  ' if right else 'FAIL'} {what}" + ("" if right else f": {seen}"))


class Authority:
    """Signs certificates for servers."""

    def __init__(self, folder, name):
        self.folder, self.name = folder, name
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.cert = self.make(name, self.key, x509.BasicConstraints(ca=True, path_length=0), [])
        self.path = os.path.join(folder, f"{name}.pem")
        with open(self.path, "wb") as f:
            f.write(self.cert.public_bytes(serialization.Encoding.PEM))

    def make(self, name, key, constraints, names):
        now = datetime.datetime.now(datetime.timezone.utc)
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self.name)]))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(constraints, critical=True)
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self.key, hashes.SHA256())

    def context(self, host):
        """What a server of this name presents."""
        key = ec.generate_private_key(ec.SECP256R1())
        try:
            names = [x509.IPAddress(ipaddress.ip_address(host))]
        except ValueError:
            names = [x509.DNSName(host)]
        cert = self.make(host, key, x509.BasicConstraints(ca=False, path_length=None), names)
        path = os.path.join(self.folder, f"{self.name}-{host}.server.pem")
        with open(path, "wb") as f:
            f.write(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                                      serialization.NoEncryption()))  # fmt: skip
            f.write(cert.public_bytes(serialization.Encoding.PEM))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        return context


class Seen:
    """Mails that were taken, commands with whether they came inside TLS, and how passwords came."""

    def __init__(self):
        self.mails, self.commands, self.logins = [], [], []

    async def handle_DATA(self, server, session, envelope):
        self.mails.append((session.ssl is not None or server.implicit, session.authenticated, envelope.content))
        return "250 taken"

    def authenticate(self, server, session, envelope, mechanism, data):
        good = data.login == USER.encode() and data.password == PASSWORD.encode()
        self.logins.append((session.ssl is not None or server.implicit, good))
        return AuthResult(success=good)


class Server(Controller):
    """A mail server; every command is noted with whether it came inside TLS."""

    def __init__(self, starttls=None, implicit=None):
        self.seen = Seen()
        self.implicit, self.starttls = implicit, starttls
        super().__init__(self.seen, hostname="127.0.0.1", port=0, ssl_context=implicit)

    def factory(self):
        seen, implicit = self.seen, self.implicit is not None
        smtp = SMTP(
            seen,
            tls_context=self.starttls,
            authenticator=seen.authenticate,
            auth_required=True,
            # With TLS from the start there is no STARTTLS that could be asked for.
            auth_require_tls=not implicit,
            require_starttls=self.starttls is not None,
        )
        smtp.implicit = implicit

        def noting(name, original):
            async def noted(arg):
                seen.commands.append((name, implicit or smtp.session.ssl is not None))
                return await original(arg)

            return noted

        for name in ("EHLO", "STARTTLS", "AUTH", "MAIL"):
            smtp._smtp_methods[name] = noting(name, getattr(smtp, f"smtp_{name}"))
        return smtp

    def _trigger_server(self):
        # The port is only known once it listens.
        self.port = self.server.sockets[0].getsockname()[1]
        super()._trigger_server()


class Liar:
    """Offers STARTTLS and refuses it: what a man in the middle does who wants the password in the clear."""

    def __init__(self):
        self.commands = []
        self.loop = asyncio.new_event_loop()
        started = threading.Event()
        threading.Thread(target=self.run, args=(started,), daemon=True).start()
        started.wait(10)

    def run(self, started):
        async def serve(reader, writer):
            writer.write(b"220 liar\r\n")
            while line := await reader.readline():
                word = line.decode(errors="replace").split()[0].upper()
                self.commands.append(word)
                answers = {"EHLO": b"250-liar\r\n250-STARTTLS\r\n250 AUTH PLAIN LOGIN\r\n", "QUIT": b"221 bye\r\n"}
                writer.write(answers.get(word, b"454 TLS not available\r\n" if word == "STARTTLS" else b"235 thanks\r\n"))
                if word == "QUIT":
                    break
            writer.close()

        async def main():
            server = await asyncio.start_server(serve, "127.0.0.1", 0)
            self.port = server.sockets[0].getsockname()[1]
            started.set()
            await server.serve_forever()

        self.loop.run_until_complete(main())


class House:
    """A process with a mail server in its settings."""

    def __init__(self, folder, number, trusted, host, port, tls):
        data = os.path.join(folder, f"data-{number}")
        config = os.path.join(folder, f"portico-{number}.toml")
        with open(config, "w") as f:
            f.write("[settings]\n")
            for key, value in {"host": host, "port": port, "tls": tls, "user": USER, "password": PASSWORD}.items():
                f.write(f'"mail.smtp.{key}" = {json.dumps(value)}\n')
            f.write('"mail.from" = "Portico <id@example.com>"\n')
        os.chmod(config, 0o600)
        flags = ["--config", config, "--ready-json", "--no-demo", "--data-dir", data]
        for name in ("listen", "consul-listen", "admin-listen", "grpc-listen", "internal-listen"):
            flags += [f"--{name}", "127.0.0.1:0"]
        self.log = os.path.join(folder, f"log-{number}")
        environment = os.environ | {"SSL_CERT_FILE": trusted}
        environment.pop("SSL_CERT_DIR", None)
        self.process = subprocess.Popen([os.environ["PORTICO_BINARY"], "serve", *flags], cwd=folder, env=environment,
                                        stdout=subprocess.PIPE, stderr=open(self.log, "w"), text=True)  # fmt: skip
        for line in self.process.stdout:
            if '"event":"ready"' in line:
                self.url = json.loads(line)["http"]
                break
        else:
            sys.exit(f"the process did not start: {open(self.log).read()}")
        with open(os.path.join(data, "operator.token")) as f:
            self.operator = f.read().strip().removeprefix("Authorization: ")

    def test(self):
        """Sends the test mail; gives the status and what was said."""
        headers = {"Authorization": self.operator, "Content-Type": "application/json"}
        body = json.dumps({"to": "anna@example.com"}).encode()
        request = urllib.request.Request(f"{self.url}/api/identity/mail/test", body, headers, method="POST")
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def end(self):
        self.process.terminate()
        self.process.wait(30)
        with open(self.log) as f:
            return f.read()


def main():
    # What the server thinks of refused handshakes is what is asked for here.
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        ours, foreign = Authority(folder, "ours"), Authority(folder, "foreign")
        number = 0

        def send(host, port, tls):
            nonlocal number
            number += 1
            house = House(folder, number, ours.path, host, port, tls)
            try:
                return *house.test(), house
            finally:
                log = house.end()
                check(f"  the log of case {number} holds no password", PASSWORD not in log, log)

        def with_server(server, host, tls):
            server.start()
            try:
                status, said, _ = send(host, server.port, tls)
            finally:
                server.stop()
            return status, said, server.seen

        status, said, seen = with_server(Server(starttls=ours.context("localhost")), "localhost", "starttls")
        check("STARTTLS with a trusted certificate sends", status == 200 and len(seen.mails) == 1, (status, said))
        check("the mail came inside TLS and after the login", seen.mails and seen.mails[0][:2] == (True, True), seen.mails)
        check("the password came once, inside TLS", seen.logins == [(True, True)], seen.logins)
        before = [name for name, inside in seen.commands if not inside]
        check("before TLS there is only the greeting", before == ["EHLO", "STARTTLS"], seen.commands)

        status, said, seen = with_server(Server(implicit=ours.context("localhost")), "localhost", "tls")
        check("TLS from the start sends", status == 200 and len(seen.mails) == 1 and seen.logins == [(True, True)], (status, said))

        refused = [
            ("a certificate of an unknown authority", Server(starttls=foreign.context("localhost")), "localhost", "starttls"),
            ("a certificate of another name", Server(starttls=ours.context("mail.other.example")), "localhost", "starttls"),
            ("the same with TLS from the start", Server(implicit=foreign.context("localhost")), "localhost", "tls"),
            ("a server that offers no TLS", Server(), "localhost", "starttls"),
            ("a plain server where TLS is wanted from the start", Server(), "localhost", "tls"),
        ]
        for what, server, host, tls in refused:
            status, said, seen = with_server(server, host, tls)
            check(f"{what} is refused", status >= 400 and "mail" in said, (status, said))
            check("  and gets neither password nor mail", not seen.logins and not seen.mails, (seen.logins, seen.mails))
            spoken = [name for name, _ in seen.commands if name in ("AUTH", "MAIL")]
            check("  nor tries to", not spoken, seen.commands)
            check("  the answer tells no password", PASSWORD not in said, said)

        liar = Liar()
        status, said, _ = send("localhost", liar.port, "starttls")
        check("a refused STARTTLS is the end of it", status >= 400, (status, said))
        check("  nothing follows it in the clear", not {"AUTH", "MAIL", "RCPT", "DATA"} & set(liar.commands), liar.commands)
    print(f"{bad} faults" if bad else "mail over TLS: all as it should be")
    sys.exit(bad > 0)


if __name__ == "__main__":
    main()
