"""Send questions about images to an OpenAI-compatible server: many at a time, again after a fault, none twice."""

from __future__ import annotations

import asyncio
import base64
import email.utils
import hashlib
import json
import math
import random
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx2
from anyio.from_thread import start_blocking_portal

from unigap.console.mistakes import shortened
from unigap.judges.served.address import check_key_variable, check_url, headers, is_private, without_key
from unigap.judges.served.replies import Reply, ReplyCache

TRANSIENT = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
"""Statuses after which a request is sent again."""
FIRST_WAIT, LONGEST_WAIT = 0.5, 30.0
"""Seconds before the second attempt, which double up to a limit."""
CONNECT_SECONDS, NOTE_SECONDS = 10.0, 60.0
JITTER = random.Random()
"""Own generator: the global one belongs to the training."""


@dataclass(frozen=True)
class Request:
    """One question about one image.

    Attributes:
        png: The image, as a PNG file.
        image: sha256 of its pixels.
        turns: The user's and the model's turns alternately; the first and the last are the user's.
        options: Further fields of the request, such as ``max_tokens``, as plain JSON.
    """

    png: bytes = field(repr=False)
    image: str
    turns: tuple[str, ...]
    options: Mapping[str, Any]

    def key(self, model: str) -> str:
        """Return the key of the reply: a sha256 of the model's name, the image, the turns and the options."""
        asked = {"model": model, "image": self.image, "turns": self.turns, "options": dict(self.options)}
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()

    def body(self, model: str) -> dict[str, Any]:
        """Return the body of the request."""
        url = f"data:image/png;base64,{base64.b64encode(self.png).decode()}"
        messages: list[dict[str, Any]] = [
            {"role": ("user", "assistant")[i % 2], "content": turn} for i, turn in enumerate(self.turns)
        ]
        shown = {"type": "image_url", "image_url": {"url": url}}
        messages[0]["content"] = [shown, {"type": "text", "text": self.turns[0]}]
        return {"model": model, "messages": messages, **self.options}


class ChatClient:
    """A model behind an OpenAI-compatible server, with retries and a cache.

    Args:
        url: Base URL of the server, such as ``http://localhost:8000/v1``. Redirects are not followed.
        model: Name of the model at the server.
        key_variable: Name of the environment variable that holds the key; empty if the server wants none.
        concurrency: Most requests under way at a time, >= 1.
        timeout: Seconds that one attempt may take, > 0.
        patience: Seconds over which a request is tried again while the server is down or busy, >= 0.
        cache: Folder of the replies.

    Raises:
        ValueError: An option cannot be honoured.
    """

    def __init__(
        self, url: str, model: str, key_variable: str, concurrency: int, timeout: float, patience: float, cache: str
    ) -> None:
        if not model.strip():
            raise ValueError("model is empty; give the name under which the server has the model")
        if concurrency < 1:
            raise ValueError(f"concurrency must be >= 1, got {concurrency}")
        if not (0 < timeout < math.inf and 0 <= patience < math.inf):
            raise ValueError(f"timeout must be > 0 and patience >= 0, in seconds, got {timeout} and {patience}")
        check_key_variable(key_variable)
        self.url, self.model, self.key_variable = check_url(url), model, key_variable
        self.concurrency, self.timeout, self.patience = concurrency, timeout, patience
        self.cache = ReplyCache(cache)
        self._next_note = 0.0

    def replies(self, requests: Sequence[Request]) -> list[Reply]:
        """Return the reply to each request, from the cache or from the server; each is stored as it arrives.

        Raises:
            ValueError: The server refuses a request, or is down or busy for longer than ``patience``.
        """
        keys = [request.key(self.model) for request in requests]
        missing = {key: request for key, request in zip(keys, requests, strict=True) if self.cache.get(key) is None}
        if missing:
            # a thread of its own: a notebook's thread runs an event loop already
            with start_blocking_portal() as portal:
                portal.call(self._fetch, missing)
        found = [self.cache.get(key) for key in keys]
        assert all(reply is not None for reply in found), "every reply was stored"
        return [reply for reply in found if reply is not None]

    def first_reply(self, request: Request) -> Reply:
        """Send one request past the cache, to learn how the server replies; a server that is down is not waited for.

        Raises:
            ValueError: No server listens there, or it refuses the request.
        """
        with start_blocking_portal() as portal:
            return portal.call(self._fetch_first, request)

    async def _fetch_first(self, request: Request) -> Reply:
        async with self._connections() as http:
            return await self._send(http, request, wait_for_server=False)

    async def _fetch(self, missing: Mapping[str, Request]) -> None:
        async with self._connections() as http:
            free = asyncio.Semaphore(self.concurrency)

            async def fetch(key: str, request: Request) -> None:
                async with free:
                    self.cache.put(key, await self._send(http, request))

            tasks = [asyncio.create_task(fetch(*item)) for item in missing.items()]
            try:
                await asyncio.gather(*tasks)
            finally:
                for task in tasks:
                    task.cancel()

    def _connections(self) -> httpx2.AsyncClient:
        # a proxy of the environment cannot reach a private host
        proxied = not is_private(httpx2.URL(self.url).host)
        return httpx2.AsyncClient(
            headers=headers(self.key_variable),
            timeout=httpx2.Timeout(self.timeout, connect=min(CONNECT_SECONDS, self.timeout)),
            limits=httpx2.Limits(max_connections=self.concurrency),
            trust_env=proxied,
        )

    async def _send(self, http: httpx2.AsyncClient, request: Request, wait_for_server: bool = True) -> Reply:
        """Send a request, again after each passing fault."""
        end = time.monotonic() + self.patience
        attempts, pause = 0, FIRST_WAIT
        while True:
            attempts, wait, pause = attempts + 1, pause * JITTER.uniform(0.75, 1), min(2 * pause, LONGEST_WAIT)
            try:
                response = await http.post(f"{self.url}/chat/completions", json=request.body(self.model))
            except httpx2.TimeoutException:
                fault = f"no answer within {self.timeout:g} seconds"
            except httpx2.RequestError as error:
                fault = f"no connection ({self._told(str(error) or type(error).__name__)})"
                if isinstance(error, httpx2.ConnectError) and not wait_for_server:
                    raise ValueError(f"{self._named()}: {fault}; start the server, or correct url") from None
            else:
                if response.status_code not in TRANSIENT:
                    return self._read(response)
                fault, asked = self._refusal(response), retry_after(response.headers)
                fault += f", to be tried in {asked:.0f} seconds" if asked > wait else ""
                wait = max(wait, asked)
            if time.monotonic() + wait > end:
                raise ValueError(
                    f"{self._named()}: {fault}; gave up after {attempts} attempts (patience {self.patience:g}); see "
                    f"to the server and start again, the replies so far are in {str(self.cache.folder)!r}"
                )
            self._tell_outage(fault)
            await asyncio.sleep(wait)

    def _read(self, response: httpx2.Response) -> Reply:
        """Return the reply in a response.

        Raises:
            ValueError: The server refuses the request, or replies with something else than a chat completion.
        """
        status = response.status_code
        if status in (401, 403):
            named = f"the key in {self.key_variable}" if self.key_variable else "key_variable, which is empty,"
            raise ValueError(f"{self._named()}: {self._refusal(response)}; check {named} and what it may use")
        if 300 <= status < 400:
            raise ValueError(f"{self._named()} sends requests on to another address, which url must name itself")
        if status != 200:
            raise ValueError(
                f"{self._named()}: {self._refusal(response)}; check url (it mostly ends with /v1) and model "
                f"{self.model!r}"
            )
        try:
            return reply_of(response.json())
        except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
            raise ValueError(
                f"{self._named()} replies with something else than a chat completion; check url (it mostly ends "
                "with /v1)"
            ) from None

    def _refusal(self, response: httpx2.Response) -> str:
        """Return the status and the server's own message."""
        try:
            content = response.json()
            error = content.get("error", content.get("detail", content.get("message", "")))
            message = error.get("message", "") if isinstance(error, dict) else str(error)
        except (ValueError, AttributeError, RecursionError):
            message = ""
        reason = f" ({self._told(message)})" if message else ""
        return f"status {response.status_code}{reason}"

    def _told(self, message: str) -> str:
        return shortened(without_key(message, self.key_variable), 120)

    def _named(self) -> str:
        return f"server {self.url!r}"

    def _tell_outage(self, fault: str) -> None:
        """Print why requests are sent again, at most once a minute."""
        if time.monotonic() >= self._next_note:
            self._next_note = time.monotonic() + NOTE_SECONDS
            print(f"note: {self._named()}: {fault}; trying again for {self.patience:g} seconds", file=sys.stderr)


def reply_of(content: Any) -> Reply:
    """Return the reply in the JSON of a chat completion.

    Raises:
        ValueError, KeyError, TypeError, IndexError: It is none.
    """
    choice = content["choices"][0]
    text, listed = choice["message"]["content"], (choice.get("logprobs") or {}).get("content")
    if not isinstance(text, str | None):
        raise ValueError("a reply is a text")
    if listed is None or (listed and not listed[0]["top_logprobs"]):
        return Reply(text or "")
    # a model that ends its reply at once has no first token
    entries = listed[0]["top_logprobs"] if listed else []
    top = tuple((str(entry["token"]), float(entry["logprob"])) for entry in entries)
    if any(math.isnan(logp) or logp > 1e-3 for _, logp in top):
        raise ValueError("a log-probability is at most 0")
    # servers write -9999 or -inf for a probability of 0
    return Reply(text or "", tuple((token, max(logp, -100.0)) for token, logp in top))


def retry_after(given: Mapping[str, str]) -> float:
    """Return the seconds that a server asks to wait, as a number or a date; 0 if it asks for nothing."""
    value = given.get("retry-after", "").strip()
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except ValueError:
            return 0.0
    return seconds if 0 < seconds < math.inf else 0.0
