"""Judges over HTTP, against a stub on this machine: verdicts, faults, kills, and what is never written anywhere."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from chat_stub import MODEL, ChatStub, Fault, cut, hang, logit_of, refused, sent

from unigap.files.images import to_image
from unigap.judges import OpenAIJudge
from unigap.judges.served import address
from unigap.judges.served.client import retry_after
from unigap.judges.served.yes_no import from_answers, from_log_probs
from unigap.judges.vqa import QUESTION
from unigap.models.base import Answers
from unigap.records import Candidate, Prompt

KEY = "sk-Secret-0123456789"
EXTERNAL = "model.init_args.external"
N = 6


@pytest.fixture
def stub(here: Path) -> Iterator[ChatStub]:
    """A server with log-probabilities, and an empty working directory."""
    with ChatStub() as stub:
        yield stub


@pytest.fixture
def bare_stub(here: Path) -> Iterator[ChatStub]:
    """A server without log-probabilities."""
    with ChatStub(log_probs=False) as stub:
        yield stub


def judge(stub: ChatStub, **options: Any) -> OpenAIJudge:
    return OpenAIJudge(**{"url": stub.url, "model": MODEL, "timeout": 1.0, "patience": 20.0, **options})


def pictures(n: int = N) -> torch.Tensor:
    level_B = torch.linspace(-1, 1, n)
    return level_B[:, None, None, None].expand(n, 3, 32, 32).contiguous()


def candidates(n: int = N) -> list[Candidate]:
    return [Candidate(Prompt(f"p{i}", f'a "{i}"\nring'), 0, 0, 0, np.zeros(16, dtype=np.int32), -1.0) for i in range(n)]


def ask(judge: OpenAIJudge, n: int = N) -> Answers:
    return judge.answers(None, candidates(n), pictures(n))  # type: ignore[arg-type]  # it asks no model of ours


def expected(n: int = N) -> torch.Tensor:
    """The stub's log-odds, from the images and questions themselves."""
    texts = [QUESTION.replace("{prompt}", candidate.prompt.text) for candidate in candidates(n)]
    return torch.tensor([logit_of(to_image(p), text) for p, text in zip(pictures(n), texts, strict=True)])


# Verdicts


def test_log_odds_are_those_of_the_first_token_over_all_spellings(stub: ChatStub) -> None:
    found = ask(judge(stub))
    torch.testing.assert_close(found.logit, expected(), atol=1e-5, rtol=0)
    torch.testing.assert_close(found.mass, torch.full((N,), 0.9))
    assert found.logit.dtype == torch.float32 and judge(stub).name == "served-judge-7b"
    assert all(body["max_tokens"] == 1 and body["temperature"] == 1 for body in stub.received)
    empty = judge(stub).answers(None, [], pictures()[:0])  # type: ignore[arg-type]
    assert empty.logit.shape == empty.mass.shape == (0,)


def test_a_missing_answer_counts_with_the_most_that_it_can_have() -> None:
    logs = {name: math.log(p) for name, p in {"Yes": 0.6, "The": 0.3, "A": 0.02}.items()}
    found = from_log_probs(list(logs.items()))
    assert found.mass == pytest.approx(0.6) and found.logit == pytest.approx(math.log(0.6 / 0.02))
    leftover = from_log_probs([("No", math.log(0.999)), ("The", math.log(0.0005))])
    assert leftover.logit == pytest.approx(math.log(0.0005 / 0.999), rel=1e-3)
    neither = from_log_probs([("The", math.log(0.5)), ("A", math.log(0.4))])
    assert neither.mass == 0 and neither.logit == pytest.approx(math.log(0.1 / 0.9))
    silent = from_log_probs([])
    assert silent.mass == 0 and silent.logit < -20
    certain = from_log_probs([("Yes", 0.0), ("No", -100.0)])
    assert certain.logit == pytest.approx(math.log(1e9)) and certain.mass == pytest.approx(1)
    assert from_log_probs([("not", -0.1), ("nothing", -3.0), ("yesterday", -4.0)]).mass == 0


def test_without_log_probs_answers_are_sampled_with_a_stated_resolution(
    bare_stub: ChatStub, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = judge(bare_stub)
    assert "gives no log-probabilities, so 9 answers are sampled" in capsys.readouterr().err
    found = ask(asked)
    assert asked.name == "served-judge-7b-of-9" and asked.recipe["samples"] == 9
    levels = torch.tensor([math.log((k + 1) / (9 - k + 1)) for k in range(10)])
    assert all(torch.isclose(levels, logit).any() for logit in found.logit)
    assert found.logit.unique().numel() > 2 and (found.logit != 0).all()
    # the stub answers from its log-odds, so the order of the images shows in the answers
    assert torch.corrcoef(torch.stack([found.logit, expected()]))[0, 1] > 0.7
    assert len(bare_stub.received) == 1 + 9 * N and bare_stub.asked_once


def test_answers_are_smoothed_and_neither_is_a_no() -> None:
    assert from_answers(["Yes.", "**yes**", "no"]).logit == pytest.approx(math.log(3 / 2))
    neither = from_answers(["Yes", "I cannot tell", ""])
    assert neither.logit == pytest.approx(math.log(2 / 3)) and neither.mass == pytest.approx(1 / 3)


def test_a_model_that_answers_neither_is_refused(stub: ChatStub) -> None:
    asked = judge(stub)
    listed = [{"top_logprobs": [{"token": "The", "logprob": -0.1}, {"token": "An", "logprob": -2.4}]}]
    choice = {"message": {"content": "The"}, "logprobs": {"content": listed}}
    stub.faults = [sent(json.dumps({"choices": [choice]}).encode())] * N
    with pytest.raises(ValueError, match="judge 'served-judge-7b' answers neither yes nor no"):
        ask(asked)


def test_log_probs_can_be_required(bare_stub: ChatStub) -> None:
    with pytest.raises(ValueError, match="gave no log-probabilities; set samples to 9"):
        judge(bare_stub, samples=0)
    assert judge(bare_stub, samples=3).name.endswith("-of-3")


def test_many_requests_are_under_way_but_not_too_many(stub: ChatStub, capsys: pytest.CaptureFixture[str]) -> None:
    stub.delay = 0.4
    ask(judge(stub, concurrency=3), 12)
    assert stub.most_under_way == 3
    # twelve take longer than the time-out of one, and to wait for one's turn is no time-out
    assert capsys.readouterr().err == ""


def test_it_is_asked_in_a_notebook(stub: ChatStub) -> None:
    async def cell() -> Answers:
        return ask(judge(stub))

    torch.testing.assert_close(asyncio.run(cell()).logit, expected(), atol=1e-5, rtol=0)


# Faults


@pytest.mark.parametrize(
    "fault",
    [refused(429), refused(500), refused(503), refused(408), cut, hang(1.5), sent(b"", 502)],
    ids=["429", "500", "503", "408", "cut off", "hangs", "502"],
)
def test_a_passing_fault_costs_time_only(stub: ChatStub, fault: Fault, capsys: pytest.CaptureFixture[str]) -> None:
    asked = judge(stub)
    stub.faults = [fault, fault]
    torch.testing.assert_close(ask(asked).logit, expected(), atol=1e-5, rtol=0)
    assert stub.asked_once
    assert capsys.readouterr().err.count("trying again for 20 seconds") == 1


def test_it_waits_as_long_as_the_server_asks(stub: ChatStub) -> None:
    asked = judge(stub)
    stub.faults = [refused(429, Retry_After="2")]
    start = time.monotonic()
    ask(asked, 1)
    assert 2 <= time.monotonic() - start < 10
    assert retry_after({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}) == 0
    assert retry_after({"retry-after": "soon"}) == retry_after({}) == retry_after({"retry-after": "-3"}) == 0
    assert retry_after({"retry-after": "7.5"}) == 7.5
    stub.faults = [refused(429, "quota used up", Retry_After="3600")]
    with pytest.raises(ValueError, match=r"status 429 \(quota used up\), to be tried in 3600 seconds; gave up after 1"):
        judge(stub)


def test_a_server_that_is_down_is_not_waited_for_at_the_start(stub: ChatStub) -> None:
    start = time.monotonic()
    with pytest.raises(ValueError, match=r"no connection .*; start the server, or correct url"):
        OpenAIJudge("http://127.0.0.1:9/v1", MODEL)
    assert time.monotonic() - start < 5


def test_it_gives_up_and_says_where_the_replies_are(stub: ChatStub) -> None:
    asked = judge(stub, patience=1.0)
    stub.faults = [refused(500, "out of memory")] * 99
    with pytest.raises(
        ValueError, match=r"status 500 \(out of memory\); gave up .*; see to the server .* 'runs/replies'"
    ):
        ask(asked)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (sent(b"<html>welcome</html>"), "something else than a chat completion"),
        (sent(b'{"choices": []}'), "something else than a chat completion"),
        (sent(b'{"choices": [{"message": {"content": 7}}]}'), "something else than a chat completion"),
        (sent(b"[" * 100_000), "something else than a chat completion"),
        (sent(b"\xff\xfe"), "something else than a chat completion"),
        (sent(b'{"choices": [{"message": {"content": "a"}, "logprobs": {"content": [{}]}}]}'), "something else than"),
        (refused(302, Location="http://example.org/"), "sends requests on to another address"),
        (
            refused(401, f"Incorrect API key {KEY}"),
            r"status 401 \(Incorrect API key \*\*\*\); check the key in JUDGE_KEY",
        ),
        (refused(400, "Server is pinned to 'a'"), r"status 400 \(Server is pinned to 'a'\); check url"),
        (sent(b'{"detail": "not here"}', 404), r"status 404 \(not here\); check url"),
    ],
)
def test_a_lasting_fault_is_told_at_once(
    stub: ChatStub, fault: Fault, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUDGE_KEY", KEY)
    stub.faults = [fault]
    with pytest.raises(ValueError, match=reason) as told:
        judge(stub, key_variable="JUDGE_KEY")
    assert KEY not in str(told.value) and "\n" not in str(told.value)


def test_the_wrong_model_is_named(stub: ChatStub) -> None:
    with pytest.raises(ValueError, match=r"The model `llama` does not exist.*model 'llama'"):
        judge(stub, model="llama")


# The cache


def test_verdicts_of_sampled_answers_are_repeated_from_the_cache(bare_stub: ChatStub) -> None:
    first = ask(judge(bare_stub)).logit
    count = len(bare_stub.received)
    bare_stub.faults = []
    # another process, at another address of the same model
    with ChatStub(log_probs=False) as moved:
        assert torch.equal(ask(judge(moved)).logit, first)
        assert len(moved.received) == 1, "the question at the start"
    assert len(bare_stub.received) == count


def test_a_damaged_reply_is_named_and_a_cut_one_asked_again(stub: ChatStub) -> None:
    ask(judge(stub))
    (path,) = Path("runs/replies").glob("*.jsonl")
    text = path.read_text()
    path.write_text(text[:-20])
    count = len(stub.received)
    torch.testing.assert_close(ask(judge(stub)).logit, expected(), atol=1e-5, rtol=0)
    assert len(stub.received) == count + 2, "the question at the start, and the reply that was cut off"
    path.write_text(text.replace("-0.1", "-0.2", 1) if "-0.1" in text else text.replace("Yes", "Yep", 1))
    with pytest.raises(ValueError, match=r"\.jsonl: line \d+ is damaged"):
        ask(judge(stub))


# What is refused, and where nothing is sent


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"url": "127.0.0.1:8000"}, "url must be the base URL"),
        ({"url": "ftp://host/v1"}, "url must be the base URL"),
        ({"url": "http://host:99999/v1"}, "url must be the base URL"),
        ({"url": f"http://me:{KEY}@host/v1"}, "leave out everything but"),
        ({"url": f"http://host/v1?key={KEY}"}, "leave out everything but"),
        ({"key_variable": KEY}, "must be the NAME of an environment variable"),
        ({"key_variable": "hf_abcdef"}, "must be the NAME of an environment variable"),
        ({"key_variable": "NO_SUCH_KEY"}, "NO_SUCH_KEY is not set; export it"),
        ({"key_variable": "BROKEN_KEY"}, "holds spaces or line breaks"),
        ({"samples": 4}, "an odd number"),
        ({"samples": -1}, "an odd number"),
        ({"concurrency": 0}, "concurrency must be >= 1"),
        ({"timeout": 0}, "timeout must be > 0"),
        ({"patience": float("nan")}, "patience >= 0"),
        ({"model": " "}, "model is empty"),
        ({"question": "Is it good?"}, r"no \{prompt\}"),
    ],
)
def test_mistakes_show_before_anything_is_sent(
    stub: ChatStub, options: dict[str, Any], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BROKEN_KEY", "a\nb")
    with pytest.raises(ValueError, match=reason) as told:
        judge(stub, **options)
    assert KEY not in str(told.value) and not stub.received


def test_plain_http_leaves_the_own_network_with_a_warning(capsys: pytest.CaptureFixture[str]) -> None:
    address._warn_unencrypted.cache_clear()
    private = ("localhost", "127.0.0.1", "[::1]", "10.0.0.7", "192.168.1.2", "node7", "judge.internal", "169.254.1.1")
    for host in private:
        assert address.check_url(f"http://{host}:8000/v1/") == f"http://{host}:8000/v1"
    address.check_url("https://api.example.org/v1")
    assert capsys.readouterr().err == ""
    for _ in range(2):
        address.check_url("http://api.example.org/v1")
    assert capsys.readouterr().err.count("warning: images and key go to 'api.example.org' unencrypted") == 1
