"""A loopback stand-in for the Hugging Face hub: enough of it to create a repository and commit files to it."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "hf_of-the-tests"


@dataclass
class HubStub:
    """What the hub was told.

    Attributes:
        repositories: Body of each request for a repository, by ``OWNER/NAME``.
        files: Content of the committed files, by the path of the repository's interface, then by file.
        refuse: Status to answer everything with; 0 answers well.
        requests: Paths that were asked for.
    """

    repositories: dict[str, dict[str, Any]] = field(default_factory=dict)
    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refuse: int = 0
    requests: list[str] = field(default_factory=list)
    url: str = ""

    def answer(self, path: str, body: bytes) -> dict[str, Any]:
        """Answer a request and remember what it said."""
        self.requests.append(path)
        if path == "/api/repos/create":
            told = json.loads(body)
            name = f"{told['organization']}/{told['name']}"
            self.repositories[name] = told
            return {"url": f"{self.url}/{name}", "name": name}
        if "/preupload/" in path:
            named = [file["path"] for file in json.loads(body)["files"]]
            return {"files": [{"path": name, "uploadMode": "regular", "shouldIgnore": False} for name in named]}
        if "/commit/" in path:
            repository = self.files.setdefault(path.partition("/commit/")[0], {})
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    repository[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            page = path.partition("/commit/")[0].removeprefix("/api/").removeprefix("models/")
            return {"commitUrl": f"{self.url}/{page}/commit/{'0' * 40}", "commitOid": "0" * 40, "success": True}
        return {}  # the check of the card's header


@contextmanager
def serve_hub() -> Iterator[HubStub]:
    """Serve a stub on a free port of this machine."""
    stub = HubStub()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status = stub.refuse or (200 if self.headers.get("Authorization") == f"Bearer {TOKEN}" else 401)
            content = json.dumps(stub.answer(self.path, body) if status == 200 else {"error": "no such user"}).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            """Keep quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    stub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield stub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
