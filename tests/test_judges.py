"""The model as its own judge, the oracle, and the judges that are wrong on purpose."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch

from unigap.judges import AlwaysYesJudge, FlippedJudge, InvertedJudge, OracleJudge, RandomJudge, SelfJudge
from unigap.records import Candidate, Prompt
from unigap.shapes.grammar import parse
from unigap.shapes.scenes import imagine, render

TEXTS = ["a red circle", "a small red circle left of a large blue square", "six rings", "two blue squares", "a ring"]


def candidates(texts: list[str]) -> list[Candidate]:
    codes = np.zeros(16, dtype=np.int32)
    return [Candidate(Prompt(f"p{i}", text), 0, 0, 0, codes, -1.0) for i, text in enumerate(texts)]


@pytest.fixture(scope="module")
def pictures() -> torch.Tensor:
    """A render of each text."""
    rng = random.Random(0)
    return torch.stack([render(imagine(parse(text), rng)) for text in TEXTS])


def test_the_model_is_asked_the_papers_question(janus: Any, pictures: torch.Tensor) -> None:
    expected = janus.judge_logit(pictures, [[f"Does this image describe {text}?"] for text in TEXTS])[:, 0]
    found = SelfJudge().logits(janus, candidates(TEXTS), pictures)
    torch.testing.assert_close(found, expected.detach(), atol=1e-5, rtol=0)
    assert found.shape == (5,) and found.dtype == torch.float32 and not found.requires_grad
    assert SelfJudge().name == "self"


def test_several_phrasings_are_averaged(janus: Any, pictures: torch.Tensor) -> None:
    questions = ("Is this {prompt}?", "does this image show {prompt}?", "{prompt}? is it {prompt}?")
    singles = [SelfJudge([question]).ask(janus, TEXTS, pictures) for question in questions]
    together = SelfJudge(questions).ask(janus, TEXTS, pictures)
    torch.testing.assert_close(together, torch.stack(singles).mean(0), atol=1e-5, rtol=0)
    last = janus.judge_logit(pictures[:1], [["a red circle? is it a red circle?"]])[0, 0]
    torch.testing.assert_close(singles[2][0], last.detach(), atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", [1, 2, 4, 5])
def test_the_size_of_a_batch_changes_no_verdict(janus: Any, pictures: torch.Tensor, size: int) -> None:
    expected = SelfJudge().ask(janus, TEXTS, pictures)
    torch.testing.assert_close(SelfJudge(batch_size=size).ask(janus, TEXTS, pictures), expected, atol=1e-5, rtol=0)


def test_nothing_to_judge(janus: Any) -> None:
    nothing = torch.zeros(0, 3, 32, 32)
    own = SelfJudge()
    for judge in (own, OracleJudge(), RandomJudge(), InvertedJudge(own), AlwaysYesJudge(), FlippedJudge(own)):
        assert judge.logits(janus, [], nothing).shape == (0,)


def test_judging_ignores_dropout_and_leaves_the_mode(new_janus, pictures: torch.Tensor) -> None:
    model = new_janus(lora_rank=2, lora_dropout=0.5)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_B" in name:
                parameter.fill_(0.1)
    expected = SelfJudge().ask(model, TEXTS, pictures)
    model.train()
    assert torch.equal(SelfJudge().ask(model, TEXTS, pictures), expected)
    assert model.training and model.trunk.training


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"questions": ()}, "at least one question"),
        ({"questions": ("Is it good?",)}, r"no \{prompt\}"),
        ({"batch_size": 0}, "batch_size must be >= 1"),
    ],
)
def test_a_self_judge_without_a_question_is_refused(options: dict, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        SelfJudge(**options)


def test_the_oracle_knows(janus: Any, pictures: torch.Tensor) -> None:
    right = OracleJudge().logits(janus, candidates(TEXTS), pictures)
    wrong = OracleJudge().logits(janus, candidates(TEXTS[1:] + TEXTS[:1]), pictures)
    assert (right > 0).all() and (wrong < 0).all() and torch.isfinite(right).all()
    assert OracleJudge().name == "oracle"


def test_the_oracle_does_not_guess_at_what_it_cannot_read(janus: Any, pictures: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="no word 'unicorn'"):
        OracleJudge().logits(janus, candidates(["a unicorn"]), pictures[:1])


def test_the_inverted_judge_says_the_opposite(janus: Any, pictures: torch.Tensor) -> None:
    for judge in (SelfJudge(), OracleJudge(), RandomJudge()):
        said = judge.logits(janus, candidates(TEXTS), pictures)
        inverted = InvertedJudge(judge)
        assert torch.equal(inverted.logits(janus, candidates(TEXTS), pictures), -said)
        assert torch.equal(InvertedJudge(inverted).logits(janus, candidates(TEXTS), pictures), said)
        assert inverted.name == f"inverted-{judge.name}"


@pytest.mark.parametrize("yes_rate", [0.1, 0.5, 0.8])
def test_the_random_judge_accepts_its_share(janus: Any, yes_rate: float) -> None:
    many = candidates(["a ring"] * 4000)
    nothing = torch.zeros(4000, 0)
    said = RandomJudge(yes_rate).logits(janus, many, nothing)
    assert torch.isfinite(said).all() and said.dtype == torch.float32
    # four standard errors
    assert abs((said > 0).float().mean().item() - yes_rate) < 4 * (yes_rate * (1 - yes_rate) / 4000) ** 0.5
    assert said.unique().numel() > 3900


def test_the_random_judge_knows_a_candidate_again_and_looks_at_nothing_else(janus: Any) -> None:
    many = candidates(["a ring"] * 300)
    said = RandomJudge().logits(janus, many, torch.zeros(300, 0))
    assert torch.equal(RandomJudge().logits(janus, many[::-1], torch.ones(300, 0)).flip(0), said)
    assert torch.equal(RandomJudge().logits(janus, many[7:9], torch.ones(2, 0)), said[7:9])
    other = RandomJudge(seed=1).logits(janus, many, torch.zeros(300, 0))
    assert 0.35 < ((other > 0) == (said > 0)).float().mean() < 0.65


@pytest.mark.parametrize("yes_rate", [0.0, 1.0, -0.1, float("nan")])
def test_a_coin_that_always_falls_the_same_way_is_refused(yes_rate: float) -> None:
    with pytest.raises(ValueError, match="yes_rate must be in"):
        RandomJudge(yes_rate)


def test_the_collapsed_judge_accepts_everything(janus: Any, pictures: torch.Tensor) -> None:
    said = AlwaysYesJudge().logits(janus, candidates(TEXTS), pictures)
    assert said.shape == (5,) and said.dtype == torch.float32 and (said > 0).all() and torch.isfinite(said).all()


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5])
def test_the_flipped_judge_turns_its_share_of_verdicts_round(janus: Any, share: float) -> None:
    many, nothing = candidates(["a ring"] * 4000), torch.zeros(4000, 0)
    plain, flipped = RandomJudge(), FlippedJudge(RandomJudge(), share)
    before, after = plain.logits(janus, many, nothing), flipped.logits(janus, many, nothing)
    turned = before != after
    assert torch.equal(after[turned], -before[turned])
    # four standard errors; and the coin is none of the random judge's
    for said in (turned, turned[before > 0]):
        assert abs(said.float().mean().item() - share) < 4 * (share * (1 - share) / len(said)) ** 0.5
    assert torch.equal(flipped.logits(janus, many[::-1], nothing).flip(0), after), "known again in any batch"
    other = FlippedJudge(RandomJudge(), share, seed=1).logits(janus, many, nothing)
    assert not torch.equal(other, after)
    assert flipped.name == f"flipped-{share}-random"


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, float("nan")])
def test_a_share_that_flips_nothing_or_everything_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match="share must be in"):
        FlippedJudge(SelfJudge(), share)
