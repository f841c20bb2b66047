"""A small server that speaks OpenAI's chat protocol, for judges over HTTP: it knows the truth and fails on request."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import math
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from PIL import Image, ImageStat

MODEL = "stub/judge-7b"
Fault = Callable[["_Handler"], None]


def logit_of(image: Image.Image, text: str) -> float:
    """The stub's log-odds of yes about an image: a function of its brightness and of the text."""
    words = int.from_bytes(hashlib.sha256(text.encode()).digest()[:2]) / 2**16
    return round(6 * (ImageStat.Stat(image.convert("L")).mean[0] / 255 - 0.5) + 4 * (words - 0.5), 3)


class ChatStub:
    """A server on a free port of this machine, in threads of this process.

    Args:
        log_probs: Whether replies have log-probabilities.
        port: The port; 0 takes a free one.
        model: Name of the only model.
    """

    def __init__(self, log_probs: bool = True, port: int = 0, model: str = MODEL) -> None:
        self.log_probs, self.model = log_probs, model
        self.faults: list[Fault] = []
        self.replied: Counter[str] = Counter()
        self.received: list[dict[str, Any]] = []
        self.keys: set[str] = set()
        self.under_way, self.most_under_way = 0, 0
        self.delay = 0.0
        self.lock = threading.Lock()
        self.after: Callable[[int], None] = lambda replies: None
        self._server = _Server(("127.0.0.1", port), _handler_of(self))
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)

    def __enter__(self) -> ChatStub:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def asked_once(self) -> bool:
        """Whether no request was replied to twice."""
        return max(self.replied.values(), default=0) <= 1


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, *args: object) -> None:
        """Say nothing of clients that hang up."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    stub: ChatStub

    def log_message(self, *args: object) -> None:
        pass

    def do_POST(self) -> None:
        stub = self.stub
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with stub.lock:
            stub.under_way += 1
            stub.most_under_way = max(stub.most_under_way, stub.under_way)
            stub.keys.add(self.headers.get("Authorization", ""))
            fault = stub.faults.pop(0) if stub.faults else None
        try:
            time.sleep(stub.delay)
            if fault is not None:
                fault(self)
            elif body["model"] != stub.model:
                self.reply(404, {"error": {"message": f"The model `{body['model']}` does not exist."}})
            else:
                self._complete(body)
        finally:
            with stub.lock:
                stub.under_way -= 1

    def _complete(self, body: dict[str, Any]) -> None:
        shown, *texts = body["messages"][0]["content"]
        image = Image.open(io.BytesIO(base64.b64decode(shown["image_url"]["url"].partition("base64,")[2])))
        said = " ".join([*(part["text"] for part in texts), *(turn["content"] for turn in body["messages"][1:])])
        logit = logit_of(image, said)
        choice: dict[str, Any] = {"index": 0, "finish_reason": "stop"}
        if "Aesthetic:" in said:
            text = f"Consistency: {int(logit >= 0) * 2}\nRealism: 1\nAesthetic: 2"
        elif "seed" in body and body["max_tokens"] > 16:
            text = f"Brightness {logit:.2f}, seed {body['seed']}."
        elif "seed" in body:
            chance = int.from_bytes(hashlib.sha256(f"{body['seed']}/{said}/{image.size}".encode()).digest()[:4]) / 2**32
            text = "Yes, it does." if chance < 1 / (1 + math.exp(-logit)) else "**No**."
        else:
            text = "Yes" if logit >= 0 else "No"
        choice["message"] = {"role": "assistant", "content": text}
        if self.stub.log_probs and body.get("logprobs"):
            choice["logprobs"] = {"content": [{"token": text, "logprob": -0.1, "top_logprobs": top_of(logit)}]}
        with self.stub.lock:
            self.stub.received.append(body)
            self.stub.replied[digest_of(body)] += 1
            count = len(self.stub.received)
        self.reply(200, {"object": "chat.completion", "model": body["model"], "choices": [choice]})
        self.stub.after(count)

    def reply(self, status: int, content: Any, headers: Iterable[tuple[str, str]] = ()) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in (("Content-Length", str(len(data))), *headers):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)


def digest_of(body: dict[str, Any]) -> str:
    """Return the sha256 of a request."""
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _handler_of(stub: ChatStub) -> type[_Handler]:
    return type("Handler", (_Handler,), {"stub": stub})


def top_of(logit: float) -> list[dict[str, Any]]:
    """Log-probabilities with a mass of 0.9 on yes and no, each in two spellings, and a third token."""
    p_yes = 0.9 / (1 + math.exp(-logit))
    shares = {"Yes": 0.75 * p_yes, " yes": 0.25 * p_yes, "No": 0.5 * (0.9 - p_yes), "\u2581no": 0.5 * (0.9 - p_yes)}
    shares["The"] = 0.1
    return [{"token": token, "logprob": math.log(share)} for token, share in shares.items()]


# Faults


def refused(status: int, message: str = "no", **headers: str) -> Fault:
    """Reply with an error."""
    named = [(name.replace("_", "-"), value) for name, value in headers.items()]
    return lambda handler: handler.reply(status, {"error": {"message": message}}, named)


def sent(data: bytes, status: int = 200) -> Fault:
    """Reply with these bytes."""
    return lambda handler: handler.reply(status, data)


def hang(seconds: float) -> Fault:
    """Say nothing for a while, then hang up."""

    def fault(handler: _Handler) -> None:
        time.sleep(seconds)
        handler.close_connection = True

    return fault


def cut(handler: _Handler) -> None:
    """Hang up in the middle of a reply."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"choices": [')
    handler.close_connection = True


if __name__ == "__main__":
    # a server of its own process, to be killed: PORT LOG; the log has a line for each reply
    with ChatStub(port=int(sys.argv[1])) as served, Path(sys.argv[2]).open("a", buffering=1) as log:
        served.after = lambda count: print(digest_of(served.received[count - 1]), file=log)
        served.delay = 0.02
        threading.Event().wait()
