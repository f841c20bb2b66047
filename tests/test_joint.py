"""Understanding taught beside generation: where the questions come from, and what they teach."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import CONFIGS, improve, state
from torch.nn import functional as F

from unigap.evaluation.probe_sources import ShapesPairs
from unigap.judges import SelfJudge
from unigap.loop.sampling import sample_candidates
from unigap.models.base import SamplingRecipe
from unigap.objectives import DPO, SFT, Contradictions, Joint, Replay, RowBatch, SwapNegatives
from unigap.objectives.negatives import ShapesNegatives, WordNegatives
from unigap.records import Candidate, Prompt
from unigap.worlds.shapes.contradictions import contradiction
from unigap.worlds.shapes.grammar import parse

TEXTS = ("a red circle", "a small red circle left of a large blue square", "six rings")


@pytest.fixture(scope="module")
def candidates(janus: Any) -> list[Candidate]:
    prompts = [Prompt(f"p{i}", text) for i, text in enumerate(TEXTS)]
    return [c for d in sample_candidates(janus, prompts, 2, 0, 0, SamplingRecipe()) for c in d.candidates]


@pytest.fixture
def batch(candidates: list[Candidate]) -> RowBatch:
    return SFT().collate(candidates, {})


def test_the_loss_is_generations_and_the_cross_entropy_of_the_answers(janus: Any, batch: RowBatch) -> None:
    joint = Joint(SFT(), [SwapNegatives(ShapesNegatives(), images=3)], weight=0.5)
    torch.manual_seed(3)
    result = joint.step(janus, batch)
    torch.manual_seed(3)
    rng = random.Random(int(torch.randint(2**31, ())))
    quiz = SwapNegatives(ShapesNegatives(), images=3).claims(janus, batch, rng)
    assert quiz is not None and quiz.truth_IQ.tolist() == [[1.0, 0.0]] * 3
    said = [SelfJudge().ask(janus, [claims[i] for claims in quiz.claims_IQ], quiz.pixels_ICHW) for i in (0, 1)]
    expected = F.binary_cross_entropy_with_logits(torch.stack(said, 1), quiz.truth_IQ)
    assert result.logs["joint/questions"].item() == pytest.approx(expected.item(), abs=1e-5)
    assert result.loss.item() == pytest.approx(SFT().step(janus, batch).loss.item() + 0.5 * expected.item(), abs=1e-5)
    again = joint.step(janus, batch)
    assert again.logs["joint/questions"] != result.logs["joint/questions"], "other questions at the next step"


def test_swapped_prompts_say_something_else_of_the_accepted_image(janus: Any, batch: RowBatch) -> None:
    quiz = SwapNegatives(ShapesNegatives(), images=6).claims(janus, batch, random.Random(0))
    assert quiz is not None and torch.equal(quiz.pixels_ICHW, janus.decode(batch.drawings_B))
    for text, (own, other) in zip(batch.texts, quiz.claims_IQ, strict=True):
        assert own == text and parse(other).key != parse(own).key


def test_replay_asks_what_is_known(janus: Any, batch: RowBatch) -> None:
    source = Replay(ShapesPairs("pretrain"), size=40, images=10)
    exam = ShapesPairs("pretrain").load(40)
    asked = zip(exam.claims, exam.pixels_BCHW, exam.truth_B, strict=True)
    known = {(claim, pixels.sum().item()): true for claim, pixels, true in asked}
    quiz = source.claims(janus, batch, random.Random(1))
    assert len(quiz.claims_IQ) == 10
    for (claim,), pixels, truth in zip(quiz.claims_IQ, quiz.pixels_ICHW, quiz.truth_IQ[:, 0], strict=True):
        assert known[claim, pixels.sum().item()] == bool(truth)


def test_a_contradiction_is_decided_by_the_surer_answer() -> None:
    claims = ["a small red circle", "a red circle", "a small circle"]
    for said, taught in {
        (2.0, 1.0, 1.0): None,
        (-2.0, 1.0, -1.0): None,
        (2.0, -0.5, -1.0): ("a small circle", True),
        (2.0, -3.0, -1.0): ("a small red circle", False),
    }.items():
        assert contradiction(claims, said) == taught
    assert contradiction(["six rings"], [1.0]) is None, "nothing follows from it"


def test_contradictions_teach_the_prompt_or_what_follows_from_it(
    janus: Any, batch: RowBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    surely = {"a red circle": 1.0, "a circle": -2.0, "a small red circle left of a large blue square": 3.0}

    def answers(pixels: torch.Tensor, questions: list[list[str]]) -> torch.Tensor:
        said = [q.removeprefix("Does this image describe ").removesuffix("?") for row in questions for q in row]
        return torch.tensor([surely.get(claim, -1.0) for claim in said]).view(len(questions), -1)

    monkeypatch.setattr(janus, "judge_logit", answers)
    quiz = Contradictions(images=6).claims(janus, batch, random.Random(0))
    assert quiz is not None and quiz.truth_IQ.shape == (4, 1), "six rings: no to the prompt, and nothing follows"
    every = janus.decode(batch.drawings_B)
    shown = [int((every - pixels).abs().amax((1, 2, 3)).argmin()) for pixels in quiz.pixels_ICHW]
    for image, (claim,), truth in zip(shown, quiz.claims_IQ, quiz.truth_IQ[:, 0], strict=True):
        asked = batch.texts[image]
        assert (claim == asked) == (asked == "a red circle") == (not truth)
    monkeypatch.setattr(janus, "judge_logit", lambda pixels, questions: torch.ones(len(questions), len(questions[0])))
    assert Contradictions().claims(janus, batch, random.Random(0)) is None


def test_the_judge_learns_from_the_questions_beside_generation(new_janus: Any, batch: RowBatch) -> None:
    model = new_janus()
    joint = Joint(SFT(), [Replay(ShapesPairs("pretrain"), size=8, images=8)], weight=1.0)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-3)
    first = last = joint.step(model, batch)
    for _ in range(25):
        optimizer.zero_grad()
        last.loss.backward()
        optimizer.step()
        last = joint.step(model, batch)
    assert last.logs["joint/questions"] < 0.8 * first.logs["joint/questions"]
    assert last.logs["joint/generation"] < first.logs["joint/generation"]


def test_joint_takes_rows_and_references_of_the_objective_it_holds(candidates: list[Candidate]) -> None:
    logits = dict(zip([c.id for c in candidates], [3.0, -1.0, 0.5, -1.0, -2.0, -3.0], strict=True))
    joint, plain = Joint(DPO(threshold=0.6), [SwapNegatives(ShapesNegatives())]), DPO(threshold=0.6)
    assert joint.threshold == 0.6 and joint.needs_reference
    assert joint.rows(candidates, logits) == plain.rows(candidates, logits)
    assert joint.members(joint.rows(candidates, logits)[0]) == plain.members(plain.rows(candidates, logits)[0])


def test_words_are_changed_for_others_of_their_group() -> None:
    negatives, rng = WordNegatives(), random.Random(0)
    assert negatives.alter("a dog", rng) is None
    for text, group in (("a Red bowl", WordNegatives().groups[0]), ("a cat to the left of a dog", ("left", "right"))):
        other = negatives.alter(text, rng)
        assert other is not None
        old, new = ({*words.lower().split()} for words in (text, other))
        assert len(old - new) == len(new - old) == 1 and (old ^ new) <= set(group)
    assert WordNegatives([("in front of", "behind")]).alter("a cat behind a dog", rng) == "a cat in front of a dog"
    assert ShapesNegatives().alter("six rings", rng) != "six rings"


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Joint(SFT(), [SwapNegatives(WordNegatives())], weight=0.0), "weight must be > 0"),
        (lambda: Joint(SFT(), [SwapNegatives(WordNegatives())], question="what?"), "no {prompt}"),
        (lambda: Joint(SFT(), []), "at least one source"),
        (lambda: Replay(ShapesPairs("pretrain"), size=4, images=5), "images must be in"),
        (lambda: SwapNegatives(ShapesNegatives(), images=0), "images must be >= 1"),
        (lambda: Contradictions(images=0), "images must be >= 1"),
        (lambda: WordNegatives([("one",)]), "two or more words"),
    ],
)
def test_impossible_settings_are_refused(make: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make()


def test_a_joint_run_resumes_bit_for_bit(janus_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (CONFIGS / "joint.yaml").is_file()
    last = Path("runs/joint/checkpoints/last.ckpt")
    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "whole")
    assert improve(janus_folder, "joint") == 0
    monkeypatch.chdir(tmp_path / "parts")
    assert improve(janus_folder, "joint", {"trainer.max_epochs": 1}) == 0
    assert improve(janus_folder, "joint", {"ckpt_path": last}) == 0
    whole, parts = (state(tmp_path / name / last) for name in ("whole", "parts"))
    assert all(torch.equal(tensor, parts[name]) for name, tensor in whole.items())
