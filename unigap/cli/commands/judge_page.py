"""``unigap judge page``: a page on this machine on which a person fills in an exported sheet."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from unigap.cli.commands.judge import SHEET, sheet_bytes
from unigap.console.closing import close, command
from unigap.files.durable import write_durable
from unigap.files.outside import read_outside_text
from unigap.files.plain import open_plain
from unigap.judges.human import ANSWERS, COLUMNS, RATER, SHOWN, plain_cell, safe_cell
from unigap.prompt_sets.rows import MAX_BYTES, csv_rows

HOST = "127.0.0.1"
PAGE = Path(__file__).with_name("judge_page.html")
POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src 'self'; connect-src 'self'"
MAX_BODY = 1024


class FilledSheet:
    """An exported sheet that is filled in verdict by verdict; each is on disk before ``judge`` returns.

    Args:
        folder: The exported folder.
        rater: Name to write into the column ``rater``; empty leaves it as it is.

    Raises:
        ValueError: The sheet is missing or not strict CSV, has no rows, or an image is not in the folder.
    """

    def __init__(self, folder: Path, rater: str = "") -> None:
        self.path, self._rater, self._lock = folder / SHEET, rater, threading.Lock()
        named = f"sheet {str(self.path)!r}"
        text = read_outside_text(self.path, named, "the sheet of unigap judge export", MAX_BYTES)
        places = [where for where, _ in csv_rows(text, named, (*COLUMNS, "image", "prompt"), (RATER, *SHOWN))]
        # all columns, so that those that are not read are written back
        self.rows = list(csv.DictReader(io.StringIO(text, newline="")))
        if not places or len(places) != len(self.rows):
            raise ValueError(f"{named} holds no rows, or empty lines; export it again")
        if rater and RATER not in self.rows[0]:
            raise ValueError(f"{named} has no column {RATER!r} for --rater; add it, or leave --rater out")
        for where, row in zip(places, self.rows, strict=True):
            if row["verdict"].strip().lower() not in ("", *ANSWERS):
                raise ValueError(f"{where}: a verdict is yes or no, got {row['verdict'][:40]!r}")
            if Path(row["image"]).name != row["image"] or not (folder / row["image"]).is_file():
                raise ValueError(f"{where}: no image {row['image'][:80]!r} in {str(folder)!r}; export it again")

    @property
    def judged(self) -> int:
        """Number of rows with a verdict."""
        return sum(bool(row["verdict"].strip()) for row in self.rows)

    def shown(self) -> list[dict[str, str]]:
        """Return prompt and verdict of each row, for the page."""
        rows = ((plain_cell(row["prompt"]), row["verdict"].strip().lower()) for row in self.rows)
        return [{"prompt": prompt, "verdict": verdict} for prompt, verdict in rows]

    def image(self, number: int) -> bytes:
        """Return the image file of a row."""
        with open_plain(self.path.parent / self.rows[number]["image"]) as file:
            return file.read()

    def judge(self, number: int, verdict: str) -> None:
        """Write a verdict into the sheet.

        Args:
            number: Number of the row, from 0.
            verdict: ``yes`` or ``no``.

        Raises:
            ValueError: There is no such row or verdict.
        """
        if verdict not in ANSWERS or not 0 <= number < len(self.rows):
            raise ValueError(f"no row {number!r} or no verdict {verdict!r}")
        with self._lock:
            rows = [dict(row) for row in self.rows]
            rows[number]["verdict"] = verdict
            if self._rater:
                rows[number][RATER] = safe_cell(self._rater)
            write_durable(self.path, sheet_bytes(rows))
            self.rows = rows


def judge_page(folder: str, port: int = 0, rater: str = "") -> None:
    """Serve a page on this machine to fill in an exported sheet, until Ctrl-C.

    The page shows an image and its prompt; the keys y and n answer, the arrows go back and forward. Every verdict is
    written into the sheet at once. The same command continues where it was left.

    Args:
        folder: Folder that ``unigap judge export`` wrote.
        port: Port on 127.0.0.1; 0 takes a free one.
        rater: Name of the person, for the column ``rater``. Default: leave it empty.
    """
    if not 0 <= port < 2**16:
        raise ValueError(f"port must be in 0 to 65535, got {port}; 0 takes a free one")
    sheet = FilledSheet(Path(folder), rater)
    with ThreadingHTTPServer((HOST, port), handler_of(sheet)) as server:
        print(f"{sheet.judged} of {len(sheet.rows)} judged; open http://{HOST}:{server.server_port}/", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()
    close({f"{sheet.judged} of {len(sheet.rows)} judged": sheet.path}, command("judge", "import", "POOL", sheet.path))


def handler_of(sheet: FilledSheet) -> type[BaseHTTPRequestHandler]:
    """Return the class that answers the page's requests about a sheet."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if not self._is_from_here():
                self._answer(HTTPStatus.FORBIDDEN, b"", "text/plain")
            elif self.path == "/":
                self._answer(HTTPStatus.OK, PAGE.read_bytes(), "text/html; charset=utf-8")
            elif self.path == "/rows":
                self._answer(HTTPStatus.OK, json.dumps(sheet.shown()).encode(), "application/json")
            elif (number := self.path.removeprefix("/image/")).isdecimal() and int(number) < len(sheet.rows):
                self._answer(HTTPStatus.OK, sheet.image(int(number)), "image/png")
            else:
                self._answer(HTTPStatus.NOT_FOUND, b"", "text/plain")

        def do_POST(self) -> None:
            # a page from elsewhere cannot send this type without asking first, and is not answered
            is_json = self.headers.get("Content-Type") == "application/json"
            length = self.headers.get("Content-Length", "")
            if not (self._is_from_here() and is_json and self.path == "/verdict"):
                return self._answer(HTTPStatus.FORBIDDEN, b"", "text/plain")
            if not length.isdecimal() or int(length) > MAX_BODY:
                return self._answer(HTTPStatus.BAD_REQUEST, b"", "text/plain")
            try:
                told: dict[str, Any] = json.loads(self.rfile.read(int(length)))
                sheet.judge(int(told["number"]), str(told["verdict"]))
            except (ValueError, TypeError, LookupError) as error:
                return self._answer(HTTPStatus.BAD_REQUEST, str(error).encode(), "text/plain; charset=utf-8")
            except OSError as error:
                return self._answer(HTTPStatus.INTERNAL_SERVER_ERROR, str(error).encode(), "text/plain; charset=utf-8")
            return self._answer(HTTPStatus.OK, b"", "text/plain")

        def _is_from_here(self) -> bool:
            """Whether the page was opened by its address on this machine, and not by a name that leads here."""
            server: Any = self.server
            port = server.server_port
            return self.headers.get("Host") in (f"{HOST}:{port}", f"localhost:{port}")

        def _answer(self, status: HTTPStatus, content: bytes, kind: str) -> None:
            self.send_response(status)
            for name, value in (
                ("Content-Type", kind),
                ("Content-Length", str(len(content))),
                ("Content-Security-Policy", POLICY),
                ("Cache-Control", "no-store"),
            ):
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            """Keep the terminal quiet."""

    return Handler
