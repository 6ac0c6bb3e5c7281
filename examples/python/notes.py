"""Notes: a complete Portico plug-in in Python's standard library. Notes live in memory, each tenant sees its own.

    PORTICO_URL=http://127.0.0.1:8080 PORTICO_TOKEN=prt_… python3 notes.py
    portico run --name notes -- python3 notes.py
"""
import json
import logging
import sys
import threading
import uuid
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "sdk" / "python"))
from portico_sdk import Problem, current, serve, service  # noqa: E402  (copy portico_sdk.py next to your program instead)

WRITE = ["notes:note:write"]
SERVICE_CONFIG = {
    "name": "notes",
    "display_name": "Notes",
    "version": "1.0.0",
    "host": "127.0.0.1",
    "port": 0,
    "base_path": "/",
    "tags": ["example", "python"],
    "metadata": {"language": "python"},
    "health_check_url": "/healthz",
    "openapi_url": "/openapi.json",
    "permissions": WRITE,
    "endpoints": [
        {"method": "GET", "path": "/notes", "description": "List the notes of my tenant"},
        {"method": "POST", "path": "/notes", "description": "Write a note", "required_permissions": WRITE},
        {"method": "GET", "path": "/notes/{id}", "description": "Read a note"},
        {"method": "DELETE", "path": "/notes/{id}", "description": "Delete a note", "required_permissions": WRITE},
    ],
}
MAX_NOTES = 1000  # for each tenant
MAX_TENANTS = 1000
MAX_BODY = 64 * 1024
LENGTHS = {"title": 200, "text": 10_000}

notes = {}  # tenant -> id -> note; nothing reads it without naming a tenant
lock = threading.Lock()


@service(SERVICE_CONFIG)
class Notes(BaseHTTPRequestHandler):
    def do_GET(self):
        url = urlsplit(self.path)
        if url.path == "/openapi.json":
            return self.answer(200, OPENAPI)
        if url.path == "/notes":
            limit, cursor = self.page(url.query)
            with lock:
                mine = list(notes.get(tenant(), {}).values())
            first = next((i + 1 for i, note in enumerate(mine) if note["id"] == cursor), 0)
            items = mine[first:first + limit]
            more = items[-1]["id"] if first + limit < len(mine) else None
            return self.answer(200, {"items": items, "next_cursor": more})
        self.answer(200, self.find(url.path))

    def do_POST(self):
        if urlsplit(self.path).path != "/notes":
            raise Problem(404, "notes.not_found", "there is nothing here")
        fields = self.read()
        note = {"id": uuid.uuid4().hex, **fields, "author": current().user,
                "created_at": datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")}
        with lock:
            mine = notes.get(tenant(), {})
            if len(mine) >= MAX_NOTES or (not mine and len(notes) >= MAX_TENANTS):
                raise Problem(507, "notes.full", f"a tenant has at most {MAX_NOTES} notes")
            notes.setdefault(tenant(), mine)[note["id"]] = note
        self.answer(201, note)

    def do_DELETE(self):
        with lock:
            note = self.find(urlsplit(self.path).path)
            del notes[tenant()][note["id"]]
            if not notes[tenant()]:
                del notes[tenant()]
        self.answer(204)

    def find(self, path):
        # A foreign tenant's note is answered like one that never was.
        root, _, note_id = path.rpartition("/")
        note = notes.get(tenant(), {}).get(note_id) if root == "/notes" else None
        if note is None:
            raise Problem(404, "notes.not_found", "there is no such note")
        return note

    def page(self, query):
        given = {name: values[-1] for name, values in parse_qs(query, keep_blank_values=True).items()}
        faults = [fault(name, "unknown", "is not a parameter") for name in given if name not in ("limit", "cursor")]
        limit = given.get("limit", "50")
        if not (limit.isascii() and limit.isdigit() and len(limit) < 4 and 1 <= int(limit) <= 200):
            faults.append(fault("limit", "range", "must be 1 to 200"))
        if "cursor" in given and given["cursor"] not in notes.get(tenant(), {}):
            faults.append(fault("cursor", "unknown", "is none of your notes"))
        if faults:
            raise Problem(400, "notes.invalid", "the query has faults", faults)
        return int(limit), given.get("cursor")

    def read(self):
        """The title and text of the body, or a Problem that names every fault."""
        length = self.headers.get("Content-Length", "")
        if not length.isdigit():
            raise Problem(411, "notes.length_required", "send Content-Length")
        if int(length) > MAX_BODY:
            raise Problem(413, "notes.too_large", f"a body has at most {MAX_BODY} bytes")
        try:
            body = json.loads(self.rfile.read(int(length)))
        except ValueError:
            body = None
        if not isinstance(body, dict):
            raise Problem(400, "notes.invalid", "the body must be a JSON object")
        faults = [fault(name, "unknown", "is not a field") for name in body if name not in LENGTHS]
        for name, most in LENGTHS.items():
            value = body.get(name)
            if not isinstance(value, str) or not value.strip():
                faults.append(fault(name, "required", "must be text"))
            elif len(value) > most:
                faults.append(fault(name, "too_long", f"has at most {most} characters"))
        if faults:
            raise Problem(400, "notes.invalid", "the note has faults", faults)
        return {name: body[name] for name in LENGTHS}

    def answer(self, status, body=None):
        raw = b"" if body is None else json.dumps(body).encode()
        self.send_response(status)
        if body is not None:
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, form, *args):
        logging.debug(form, *args)


def tenant():
    """The tenant of the caller, as the gateway signed it; whatever the client wrote has been removed there."""
    who = current()
    if who is None or who.tenant is None:
        raise Problem(403, "notes.tenant_required", "notes belong to a tenant; log in")
    return who.tenant


def fault(field, code, message):
    return {"field": field, "code": code, "message": message}


OPENAPI = json.loads((Path(__file__).resolve().parents[1] / "notes.openapi.json").read_text())

if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    serve(Notes)
