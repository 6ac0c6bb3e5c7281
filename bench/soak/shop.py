"""The instances behind the door: a small HTTP/1.1 server with every kind of answer, in a process of its own."""

import asyncio
import base64
import hashlib
import os
import signal

KILOBYTE = b"x" * 1024
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


async def serve(reader, writer):
    try:
        while head := await reader.readuntil(b"\r\n\r\n"):
            lines = head.decode("latin-1").split("\r\n")
            method, path, _ = lines[0].split(" ", 2)
            fields = {k.strip().lower(): v.strip() for k, v in (line.split(":", 1) for line in lines[1:] if ":" in line)}
            body = await body_of(reader, fields)
            if await answer(reader, writer, method, path.partition("?"), fields, body):
                break
    except (asyncio.IncompleteReadError, ConnectionError, asyncio.LimitOverrunError):
        pass
    finally:
        writer.close()


async def body_of(reader, fields):
    if "content-length" in fields:
        return await reader.readexactly(int(fields["content-length"]))
    if fields.get("transfer-encoding") != "chunked":
        return b""
    body = b""
    while size := int(await reader.readuntil(b"\r\n"), 16):
        body += (await reader.readexactly(size + 2))[:-2]
    while (await reader.readuntil(b"\r\n")) != b"\r\n":
        pass
    return body


async def answer(reader, writer, method, target, fields, body):
    """Answers one request; true when the connection is over."""
    path, _, query = target
    name = path.rsplit("/", 1)[-1]
    if name == "feed":
        return await feed(writer)
    if name == "talk":
        return await talk(reader, writer, fields)
    status, more, text = "200 OK", "", KILOBYTE
    if name == "cached":
        more = "Cache-Control: public, max-age=1\r\n"
    elif name == "orders":
        text = hashlib.sha256(body).hexdigest().encode()
    elif name == "echo":
        text = query.encode()
    elif name == "broken":
        status, text = "500 Oops", b"oops"
    elif name == "large":
        text = KILOBYTE * 4096
    elif name == "cut":
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nshort")
        return True
    writer.write(f"HTTP/1.1 {status}\r\n{more}Content-Length: {len(text)}\r\n\r\n".encode() + text)
    await writer.drain()
    return False


async def feed(writer):
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
    for n in range(10_000):
        event = f"data: {n}\n\n".encode()
        writer.write(f"{len(event):x}\r\n".encode() + event + b"\r\n")
        await writer.drain()
        await asyncio.sleep(0.5)
    return True


async def talk(reader, writer, fields):
    key = base64.b64encode(hashlib.sha1(fields["sec-websocket-key"].encode() + GUID).digest()).decode()
    writer.write(f"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {key}\r\n\r\n".encode())
    while True:
        first, second = await reader.readexactly(2)
        mask = await reader.readexactly(4)
        payload = bytes(b ^ mask[i % 4] for i, b in enumerate(await reader.readexactly(second & 0x7F)))
        writer.write(bytes([first, len(payload)]) + payload)
        await writer.drain()
        if first & 0x0F == 8:
            return True


async def flap(port):
    """A listener that is there for five seconds and away for five."""
    while True:
        server = await asyncio.start_server(serve, "127.0.0.1", port)
        await asyncio.sleep(5)
        server.close()
        await asyncio.sleep(5)


async def run(pipe, count):
    servers = [await asyncio.start_server(serve, "127.0.0.1", 0, backlog=1024) for _ in range(count + 1)]
    ports = [server.sockets[0].getsockname()[1] for server in servers]
    servers[-1].close()
    flapping = asyncio.create_task(flap(ports[-1]))
    pipe.send(ports)
    await flapping


def main(pipe, count):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(5)
    asyncio.run(run(pipe, count))
