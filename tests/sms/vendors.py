"""The vendors' own clients against our stand-ins: what they sign is taken, one flipped byte is refused.

The stand-ins are the ones that check our own signers in `cargo test -p portico-sms`, so that both sides of
that test are held to what the vendors really send. Between client and stand-in sits a relay that keeps the
bytes of the last request, to send them again with a change.
"""

import json
import os
import socket
import subprocess
import sys
import threading

from alibabacloud_dysmsapi20170525 import models as aliyun_models
from alibabacloud_dysmsapi20170525.client import Client as AliyunClient
from alibabacloud_tea_openapi import models as aliyun_config
from tencentcloud.common import credential
from tencentcloud.common.profile.client_profile import ClientProfile
from tencentcloud.common.profile.http_profile import HttpProfile
from tencentcloud.sms.v20210111 import models as tencent_models
from tencentcloud.sms.v20210111 import sms_client
from twilio.http.http_client import TwilioHttpClient
from twilio.rest import Client as TwilioClient

PHONE, CODE = "+8613812345678", "048213"


def read_request(stream):
    """The bytes of one request."""
    data = b""
    while b"\r\n\r\n" not in data:
        part = stream.recv(65536)
        if not part:
            return b""
        data += part
    head, _, body = data.partition(b"\r\n\r\n")
    length = 0
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-length":
            length = int(value)
    while len(body) < length:
        body += stream.recv(65536)
    return head + b"\r\n\r\n" + body


def send(address, data):
    """Sends bytes and reads the whole answer; a refusal to read the request is an answer as well."""
    with socket.create_connection(address, timeout=10) as stream:
        stream.sendall(data)
        stream.shutdown(socket.SHUT_WR)
        answer = b""
        try:
            while part := stream.recv(65536):
                answer += part
        except ConnectionError:
            pass
        return answer


class Relay:
    """Passes requests to a stand-in and remembers the last one."""

    def __init__(self, target):
        self.target, self.last = target, b""
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            stream, _ = self.listener.accept()
            with stream:
                self.last = read_request(stream)
                if self.last:
                    stream.sendall(send(self.target, self.last))


class StandIns:
    """The program with all three."""

    def __init__(self, program):
        self.process = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.address = {}
        for _ in range(3):
            name, url = self.process.stdout.readline().split()
            host, _, port = url.removeprefix("http://").partition(":")
            self.address[name] = (host, int(port))

    def last(self, vendor):
        """What a stand-in says of its last request."""
        self.process.stdin.write(vendor + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def end(self):
        self.process.stdin.close()
        self.process.wait(10)


def aliyun(port):
    client = AliyunClient(
        aliyun_config.Config(
            access_key_id="LTAI5tStandInStandInStan",
            access_key_secret="aliyun-stand-in-secret-000001",
            endpoint=f"127.0.0.1:{port}",
            protocol="http",
        )
    )
    wish = aliyun_models.SendSmsRequest(
        phone_numbers=PHONE,
        sign_name="门廊 ~*'()",
        template_code="SMS_153050000",
        template_param=json.dumps({"code": CODE}),
    )
    answer = client.send_sms(wish).body
    assert answer.code == "OK", answer


def tencent(port):
    http = HttpProfile(protocol="http", endpoint=f"127.0.0.1:{port}")
    client = sms_client.SmsClient(
        credential.Credential("AKIDStandInStandInStandInStandIn0001", "tencent-stand-in-secret-000001"),
        "ap-guangzhou",
        ClientProfile(httpProfile=http, signMethod="TC3-HMAC-SHA256"),
    )
    wish = tencent_models.SendSmsRequest()
    wish.PhoneNumberSet = [PHONE]
    wish.SmsSdkAppId = "1400006666"
    wish.SignName = "腾讯云"
    wish.TemplateId = "1110"
    wish.TemplateParamSet = [CODE]
    answer = client.SendSms(wish)
    assert answer.SendStatusSet[0].Code == "Ok", answer


def twilio(port):
    class Near(TwilioHttpClient):
        """The same client with another address."""

        def request(self, method, url, *args, **kwargs):
            return super().request(method, url.replace("https://api.twilio.com", f"http://127.0.0.1:{port}"), *args, **kwargs)

    client = TwilioClient(
        "AC00000000000000000000000000000001", "twilio-stand-in-token-00000001", http_client=Near()
    )
    message = client.messages.create(to=PHONE, from_="+15005550006", body=f"Your code is {CODE}.")
    assert message.status == "queued", message


def signed_parts(vendor, request):
    """Offsets of the bytes that the signature covers or is made of."""
    head, _, _ = request.partition(b"\r\n\r\n")
    auth = head.lower().index(b"authorization:")
    end = head.find(b"\r\n", auth) if b"\r\n" in head[auth:] else len(head)
    if vendor == "aliyun":
        start = request.index(b"?") + 1
        yield from range(start, request.index(b" HTTP/1.1"))
        yield from range(head.index(b"Signature=", auth) + 10, end)
        at = head.lower().index(b"x-acs-signature-nonce:") + 23
        yield from range(at, at + 16)
    elif vendor == "tencent":
        yield from range(len(head) + 4, len(request))
        yield from range(head.index(b"Signature=", auth) + 10, end)
    else:
        # The last characters of base64 have bits that mean nothing.
        yield from range(head.index(b"Basic ", auth) + 6, end - 4)


def check(stand_ins, vendor, client):
    relay = Relay(stand_ins.address[vendor])
    client(relay.port)
    assert stand_ins.last(vendor) == f"taken {PHONE} {CODE}", stand_ins.last(vendor)
    good, flipped = relay.last, 0
    for at in signed_parts(vendor, good):
        bad = good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :]
        send(relay.target, bad)
        said = stand_ins.last(vendor)
        assert said.startswith("refused "), f"{vendor}: byte {at} ({good[at:at + 1]!r}) flipped and {said}"
        flipped += 1
    assert flipped > 30, flipped
    if vendor == "aliyun":
        send(relay.target, good)
        assert stand_ins.last(vendor).startswith("refused SignatureNonceUsed"), "a replay is taken"
    print(f"{vendor}: the vendor's client is taken, {flipped} requests with one flipped byte are refused")


def main():
    # The vendors' clients must not find a proxy of the machine between them and us.
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            del os.environ[name]
    stand_ins = StandIns(sys.argv[1])
    try:
        for vendor, client in [("aliyun", aliyun), ("tencent", tencent), ("twilio", twilio)]:
            check(stand_ins, vendor, client)
    finally:
        stand_ins.end()


main()
