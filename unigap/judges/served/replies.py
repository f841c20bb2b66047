"""Replies of a chat model, and a cache of them on disk: a question is never asked twice."""

from __future__ import annotations

import secrets
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from unigap.files.journal import append_line, read_journal

KEYS = ("key", "reply")


@dataclass(frozen=True)
class Reply:
    """What a model replied.

    Attributes:
        text: The text.
        top: The most likely first tokens and their log-probabilities in nats; None if the server gave none.
    """

    text: str
    top: tuple[tuple[str, float], ...] | None = None


class ReplyCache:
    """Replies by the key of their request, in append-only files of one folder.

    Every process appends to a file of its own, so that processes on several machines can share the folder. A reply that
    another process stores is seen by those that open the folder later.

    Args:
        folder: The folder; created with the first reply.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._own = self.folder / f"{secrets.token_hex(8)}.jsonl"
        self._replies: dict[str, Reply] | None = None

    def get(self, key: str) -> Reply | None:
        """Return the stored reply; None if there is none.

        Raises:
            ValueError: A file is damaged; the message names it. A last line that was cut off is left out.
        """
        if self._replies is None:
            records = [
                record for path in sorted(self.folder.glob("*.jsonl")) for record in read_journal(path, KEYS).records
            ]
            self._replies = {record["key"]: _reply(record["reply"]) for record in records}
        return self._replies.get(key)

    def put(self, key: str, reply: Reply) -> None:
        """Store a reply durably.

        Raises:
            OSError: The folder cannot be written; earlier replies are safe.
        """
        append_line(self._own, {"key": key, "reply": asdict(reply)})
        if self._replies is not None:
            self._replies[key] = reply


def _reply(stored: dict[str, Any]) -> Reply:
    top = stored["top"]
    return Reply(stored["text"], None if top is None else tuple((token, logp) for token, logp in top))
