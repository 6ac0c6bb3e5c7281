"""The clients: HTTP/1.1, HTTP/2 and WebSocket by hand, so that every answer is looked at."""

import asyncio
import base64
import hashlib
import os
import random


class Wrong(Exception):
    """An answer that must not be."""


class Wire:
    """One HTTP/1.1 connection."""

    def __init__(self, address):
        self.address = address
        self.reader = self.writer = None

    async def ask(self, method, path, body=b"", fields="", wanted=(200,)):
        if self.writer is None:
            self.reader, self.writer = await asyncio.open_connection(*self.address)
        length = f"Content-Length: {len(body)}\r\n" if body else ""
        self.writer.write(f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{fields}{length}\r\n".encode() + body)
        try:
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
            status, text, last = int(head.split(" ")[1]), b"", "\r\nconnection: close" in head
            if "\r\ncontent-length:" in head:
                text = await self.reader.readexactly(int(head.split("\r\ncontent-length:")[1].split("\r\n")[0]))
            elif "\r\ntransfer-encoding: chunked" in head:
                while size := int(await self.reader.readuntil(b"\r\n"), 16):
                    text += (await self.reader.readexactly(size + 2))[:-2]
                await self.reader.readuntil(b"\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            self.close()
            raise
        if last:
            self.close()
        if status not in wanted:
            raise Wrong(f"{method} {path}: {status} {text[:200]!r}")
        return status, text

    def close(self):
        if self.writer is not None:
            self.writer.close()
        self.reader = self.writer = None


async def plain(town):
    wire = Wire(town.address)
    while await town.turn():
        id = str(random.random())
        _, text = await wire.ask("GET", f"/api/shop/echo?{id}")
        if text.decode() != id:
            raise Wrong(f"{text!r} instead of {id}")


async def cached(town):
    wire = Wire(town.address)
    while await town.turn():
        await wire.ask("GET", f"/api/shop/cached?{random.randrange(2000)}")


async def buying(town):
    wire = Wire(town.address)
    while await town.turn():
        body = os.urandom(random.choice([10, 1000, 60_000, 300_000]))
        _, text = await wire.ask("POST", "/api/shop/orders", body)
        if text.decode() != hashlib.sha256(body).hexdigest():
            raise Wrong("a body came changed")


async def once(town):
    while await town.turn():
        wire = Wire(town.address)
        await wire.ask("GET", "/api/shop/plain", fields="Connection: close\r\n")


async def unlucky(town):
    wire = Wire(town.address)
    for n in iter(int, 1):
        if not await town.turn():
            return
        path, wanted = [
            ("/api/nobody/", (404,)),
            ("/api/shop/broken", (500,)),
            ("/nothing/here", (404,)),
            ("/api/shop/%00", (400,)),
            ("/api/flapping/echo?x", (200, 502, 503)),
        ][random.randrange(5)]
        await wire.ask("GET", path, wanted=wanted)


async def hasty(town):
    """Leaves in the middle of a large answer, or of its own request."""
    while await town.turn():
        reader, writer = await asyncio.open_connection(*town.address)
        if random.random() < 0.5:
            writer.write(b"GET /api/shop/large HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            await reader.readexactly(random.choice([1, 10_000, 200_000]))
        else:
            writer.write(b"POST /api/shop/orders HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100000\r\n\r\n" + b"y" * 5000)
            await writer.drain()
        writer.transport.abort()


async def reading(town):
    while await town.turn():
        reader, writer = await asyncio.open_connection(*town.address)
        writer.write(b"GET /api/shop/feed HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        until = town.now() + random.uniform(2, 20)
        while town.now() < until and not town.over:
            await reader.readuntil(b"\n\n")
        writer.close()


async def talking(town):
    while await town.turn():
        reader, writer = await asyncio.open_connection(*town.address)
        key = base64.b64encode(os.urandom(16)).decode()
        writer.write(
            f"GET /api/shop/talk HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        head = await reader.readuntil(b"\r\n\r\n")
        if b" 101 " not in head:
            raise Wrong(f"no WebSocket: {head!r}")
        until = town.now() + random.uniform(2, 20)
        while town.now() < until and not town.over:
            text = os.urandom(random.randrange(100))
            writer.write(bytes([0x82, 0x80 | len(text), 0, 0, 0, 0]) + text)
            first, length = await reader.readexactly(2)
            if first != 0x82 or await reader.readexactly(length) != text:
                raise Wrong("a message came changed")
            await asyncio.sleep(0.2)
        if random.random() < 0.5:
            writer.write(bytes([0x88, 0x82, 0, 0, 0, 0, 3, 0xE8]))
            await reader.read()
        writer.close()


def frame(kind, flags, stream, payload=b""):
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def field(name, value):
    return bytes([0, len(name)]) + name + bytes([len(value)]) + value


async def multiplexing(town):
    """HTTP/2 with prior knowledge, several streams at a time, some of them taken back."""
    while await town.turn():
        reader, writer = await asyncio.open_connection(*town.address)
        writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0))
        stream = 1
        for _ in range(30):
            if not await town.turn():
                break
            waiting = set()
            for _ in range(4):
                block = field(b":method", b"GET") + field(b":scheme", b"http") + field(b":authority", b"127.0.0.1")
                path = random.choice([b"/api/shop/plain", b"/api/shop/cached?1", b"/api/nobody/"])
                writer.write(frame(1, 5, stream, block + field(b":path", path)))
                if random.random() < 0.1:
                    writer.write(frame(3, 0, stream, (8).to_bytes(4, "big")))
                else:
                    waiting.add(stream)
                stream += 2
            while waiting:
                head = await reader.readexactly(9)
                payload = await reader.readexactly(int.from_bytes(head[:3], "big"))
                kind, flags, number = head[3], head[4], int.from_bytes(head[5:], "big")
                if kind == 4 and not flags:
                    writer.write(frame(4, 1, 0))
                elif kind == 6 and not flags:
                    writer.write(frame(6, 1, 0, payload))
                elif kind in (3, 7):
                    raise Wrong(f"a stream was refused: {head!r} {payload!r}")
                elif kind == 0 and payload:
                    writer.write(frame(8, 0, 0, len(payload).to_bytes(4, "big")))
                if kind in (0, 1) and flags & 1:
                    waiting.discard(number)
        writer.close()


ALL = [
    (plain, 6), (cached, 4), (buying, 2), (once, 2), (unlucky, 2), (hasty, 1), (reading, 10), (talking, 10), (multiplexing, 2),
]  # fmt: skip
