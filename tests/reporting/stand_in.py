"""A stand-in for the hub: what the client of huggingface_hub asks for, and what arrives."""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Hub(ThreadingHTTPServer):
    """Keeps what it is sent.

    Attributes:
        asked: (method, path, token) of every request.
        created: repositories that were asked for.
        files: path -> content, of what was committed.
        commits: how many there were.
        refuse: part of a path -> (status, headers) of the answer.
        public: whether repositories are public, whatever is asked.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[tuple[str, str, str]] = []
        self.created: list[dict[str, Any]] = []
        self.blobs: dict[str, bytes] = {}
        self.files: dict[str, bytes] = {}
        self.commits = 0
        self.refuse: dict[str, tuple[int, dict[str, str]]] = {}
        self.public = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def commit(self, body: bytes) -> None:
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                self.files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                self.files[value["path"]] = self.blobs[value["oid"]]
        self.commits += 1


class _Handler(BaseHTTPRequestHandler):
    server: Hub

    def do_GET(self) -> None:
        self._do(b"")

    def do_POST(self) -> None:
        self._do(self.rfile.read(int(self.headers["Content-Length"])))

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        oid = self.path.rsplit("/", 1)[1]
        assert hashlib.sha256(body).hexdigest() == oid
        self.server.blobs[oid] = body
        self._do(body)

    def _do(self, body: bytes) -> None:
        hub = self.server
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        hub.asked.append((self.command, self.path, token))
        for part, (status, headers) in hub.refuse.items():
            if part in self.path:
                self._answer(
                    {"error": f"no, {token}", "errors": [{"message": "no tags"}]}, status, headers
                )
                return
        self._answer(self._reply(body))

    def _reply(self, body: bytes) -> dict[str, Any]:
        hub = self.server
        if self.path.endswith("/commit/main"):
            hub.commit(body)
            return {"commitUrl": f"{hub.url}/me/bridge/commit/c0ffee", "commitOid": "c0ffee"}
        if self.command == "PUT":
            return {}
        asked = json.loads(body) if body else {}
        if self.path == "/api/repos/create":
            hub.created.append(asked)
            return {"url": f"{hub.url}/me/bridge"}
        if "/preupload/" in self.path:
            modes = {True: "lfs", False: "regular"}
            return {
                "files": [
                    {
                        "path": f["path"],
                        "uploadMode": modes[f["path"].endswith(".safetensors")],
                        "shouldIgnore": False,
                    }
                    for f in asked["files"]
                ]
            }
        if self.path.endswith("/objects/batch"):
            href = f"{hub.url}/put"
            return {
                "objects": [
                    {**o, "actions": {"upload": {"href": f"{href}/{o['oid']}"}}}
                    for o in asked["objects"]
                ]
            }
        if self.path.startswith("/api/models/"):
            return {"id": "me/bridge", "private": not hub.public}
        return {"warnings": []}

    def _answer(
        self, value: dict[str, Any], status: int = 200, headers: dict[str, str] | None = None
    ) -> None:
        content = json.dumps(value).encode()
        self.send_response(status)
        own = {"Content-Type": "application/json", "Content-Length": str(len(content))}
        for name, text in {**own, **(headers or {})}.items():
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def standing_in() -> Iterator[Hub]:
    """Answer in a thread."""
    with Hub() as hub:
        thread = threading.Thread(target=hub.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield hub
        hub.shutdown()
        thread.join()
