"""VQAScore over HTTP: a model behind any OpenAI-compatible server as the judge."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from unigap.files.images import to_image, to_png
from unigap.judges.answer_mass import check_mass
from unigap.judges.asked import Chat, ExplainingJudge, Writing
from unigap.judges.described import Described
from unigap.judges.served.client import ChatClient, Request
from unigap.judges.served.yes_no import YesNo, from_answers, from_log_probs
from unigap.judges.vqa import QUESTION
from unigap.models.base import Answers, UnifiedModel
from unigap.records import Candidate

# Shape legend: B images, K chats an image.

LISTED = 20
"""First tokens whose log-probabilities are asked for: the most that OpenAI and vLLM give by default."""
FIRST_TOKEN = {"max_tokens": 1, "temperature": 1.0, "top_p": 1.0, "logprobs": True, "top_logprobs": LISTED}
"""At temperature 1, servers that list probabilities after the sampling options list the model's own."""
ANSWER_TOKENS = 16
SAMPLES = 9
"""Answers sampled for each question if the server gives no log-probabilities."""


class OpenAIJudge(ExplainingJudge):
    """Log-odds of "yes" against "no" by a model behind an OpenAI-compatible server: vLLM, SGLang, llama.cpp, ...

    The log-odds are those of the first token of the answer, from the log-probabilities that the server lists, over all
    spellings of yes and of no. A server that lists none is asked several times at temperature 1. Then ``k`` yes of
    ``n`` answers give log((k + 1) / (n - k + 1)). The judge's name says ``n``: its verdicts have n + 1 levels. An
    answer that is neither yes nor no counts as no.

    When the judge is made, it asks one question, so a wrong address or model stops a run before it samples. Replies are
    stored in ``cache`` as they arrive: a killed round asks no question twice. Requests are sent again, with growing
    pauses, while the server is down, busy or failing. The key is read from the environment and stored nowhere.

    Args:
        url: Base URL of the server, e.g. ``http://localhost:8000/v1``.
        model: Name of the model at the server, e.g. ``Qwen/Qwen2.5-VL-72B-Instruct``.
        question: The question, with a ``{prompt}`` in it.
        samples: Answers sampled for each question, an odd number; 0 reads log-probabilities; null takes 0 if the server
            gives them, else 9, and says so.
        key_variable: Name of the environment variable that holds the key, e.g. ``OPENAI_API_KEY``, never the key
            itself; empty if the server wants none.
        concurrency: Most requests under way at a time.
        timeout: Seconds that one attempt may take.
        patience: Seconds over which a request is tried again before the run stops.
        cache: Folder of the replies, by image, question and model; processes and runs may share it.
    """

    not_in_recipe = (*Described.not_in_recipe, "url", "key_variable", "concurrency", "timeout", "patience", "cache")

    def __init__(
        self,
        url: str,
        model: str,
        question: str = QUESTION,
        samples: int | None = None,
        key_variable: str = "",
        concurrency: int = 16,
        timeout: float = 60.0,
        patience: float = 300.0,
        cache: str = "runs/replies",
    ) -> None:
        if "{prompt}" not in question:
            raise ValueError(f"question {question!r} has no {{prompt}} to put the prompt in")
        if samples is not None and (samples < 0 or (samples and samples % 2 == 0)):
            raise ValueError(f"samples must be an odd number, so that no image is undecided, or 0, got {samples}")
        self.url, self.model, self.question, self.key_variable = url, model, question, key_variable
        self.concurrency, self.timeout, self.patience, self.cache = concurrency, timeout, patience, cache
        self._client = ChatClient(url, model, key_variable, concurrency, timeout, patience, cache)
        self.samples = self._samples_of_server(samples)

    @property
    def name(self) -> str:
        resolution = f"-of-{self.samples}" if self.samples else ""
        return f"served-{Path(self.model).name}{resolution}"

    def answers(self, model: UnifiedModel, candidates: Sequence[Candidate], pixels_BCHW: torch.Tensor) -> Answers:
        texts = [self.question.replace("{prompt}", candidate.prompt.text) for candidate in candidates]
        answers_BQ = self.ask_each(model, [[text] for text in texts], pixels_BCHW)
        answers = Answers(answers_BQ.logit[:, 0], answers_BQ.mass[:, 0])
        check_mass(self.name, answers.mass)
        return answers

    def ask_each(
        self, model: UnifiedModel, questions_BQ: Sequence[Sequence[str]], pixels_BCHW: torch.Tensor
    ) -> Answers:
        return self.ask_after(model, [[(text,) for text in row] for row in questions_BQ], pixels_BCHW)

    def ask_after(self, model: UnifiedModel, chats_BK: Sequence[Sequence[Chat]], pixels_BCHW: torch.Tensor) -> Answers:
        if not chats_BK:
            return Answers(pixels_BCHW.new_zeros(0, 1), pixels_BCHW.new_zeros(0, 1))
        options = _seeded(ANSWER_TOKENS, 1.0, self.samples) if self.samples else [FIRST_TOKEN]
        requests = _requests(pixels_BCHW, chats_BK, options)
        replies = self._client.replies(requests)
        if self.samples:
            n = self.samples
            found = [from_answers([reply.text for reply in replies[i : i + n]]) for i in range(0, len(replies), n)]
        else:
            found = [self._from_log_probs(reply.top) for reply in replies]
        shape = (len(chats_BK), -1)
        logit, mass = ([getattr(answer, part) for answer in found] for part in ("logit", "mass"))
        return Answers(*(torch.tensor(values, dtype=torch.float32).view(shape) for values in (logit, mass)))

    def explain(
        self, model: UnifiedModel, requests: Sequence[str], pixels_BCHW: torch.Tensor, how: Writing
    ) -> list[list[str]]:
        options = _seeded(how.max_tokens, how.temperature, how.samples)
        texts = [
            reply.text for reply in self._client.replies(_requests(pixels_BCHW, [[(r,)] for r in requests], options))
        ]
        return [texts[i : i + how.samples] for i in range(0, len(texts), how.samples)]

    def _from_log_probs(self, top: tuple[tuple[str, float], ...] | None) -> YesNo:
        if top is None:
            raise ValueError(f"server {self.url!r} gave no log-probabilities; set samples to {SAMPLES}, or take vLLM")
        return from_log_probs(top)

    def _samples_of_server(self, samples: int | None) -> int:
        """Ask the server one question about a grey image, to see that it replies, and with log-probabilities."""
        options = FIRST_TOKEN if not samples else _seeded(ANSWER_TOKENS, 1.0, 1)[0]
        grey = torch.zeros(1, 3, 64, 64)
        (request,) = _requests(grey, [[(self.question.replace("{prompt}", "a grey square"),)]], [options])
        reply = self._client.first_reply(request)
        if samples is not None:
            if samples == 0:
                self._from_log_probs(reply.top)
            return samples
        if reply.top is None:
            print(
                f"note: server {self.url!r} gives no log-probabilities, so {SAMPLES} answers are sampled for each "
                f"question: verdicts have {SAMPLES + 1} levels",
                file=sys.stderr,
            )
        return SAMPLES if reply.top is None else 0


def _seeded(max_tokens: int, temperature: float, samples: int) -> list[dict[str, Any]]:
    """Return the options of each of several sampled texts; the seeds make each a request of its own."""
    return [{"max_tokens": max_tokens, "temperature": temperature, "seed": seed} for seed in range(samples)]


def _requests(
    pixels_BCHW: torch.Tensor, chats_BK: Sequence[Sequence[Chat]], options: Sequence[dict[str, Any]]
) -> list[Request]:
    """Return a request for each image, chat and set of options, in this order."""
    requests = []
    for pixels_CHW, chats in zip(pixels_BCHW, chats_BK, strict=True):
        image = to_image(pixels_CHW)
        digest = hashlib.sha256(repr(image.size).encode() + image.tobytes()).hexdigest()
        png = to_png(pixels_CHW)
        requests += [Request(png, digest, chat, how) for chat in chats for how in options]
    return requests
