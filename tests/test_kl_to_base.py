"""Training held to the base: the divergence against closed forms, and that it is estimated on what nobody selected."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import FICKLE, improve

from unigap.loop.references import image_likelihoods
from unigap.loop.sampling import sample_candidates
from unigap.models.base import SamplingRecipe
from unigap.objectives import DPO, SFT, Joint, KLToBase, SwapNegatives
from unigap.objectives.losses import kl_to_base, sft_loss
from unigap.objectives.negatives import ShapesNegatives
from unigap.pool import Pool
from unigap.records import Candidate, Prompt

TEXTS = ("a red circle", "a small red circle left of a large blue square", "six rings")
BASE = torch.tensor([0.5, 0.25, 0.25], dtype=torch.float64)
DRAWN = torch.tensor([0, 0, 1, 2])  # each image as often as the base draws it


@pytest.fixture(scope="module")
def candidates(janus: Any) -> list[Candidate]:
    """Two drawings for each prompt in each of two rounds."""
    prompts = [Prompt(f"p{i}", text) for i, text in enumerate(TEXTS)]
    rounds = (sample_candidates(janus, prompts, 2, round, 0, SamplingRecipe()) for round in (0, 1))
    return [c for drawings in rounds for d in drawings for c in d.candidates]


def estimate(logits: torch.Tensor, drawn: torch.Tensor) -> torch.Tensor:
    return kl_to_base(logits.log_softmax(0)[drawn], BASE.log()[drawn])


def test_over_what_the_base_draws_the_estimate_and_its_gradient_near_those_of_the_divergence() -> None:
    away, errors = torch.tensor([0.3, -1.0, 0.5], dtype=torch.float64), []
    for step in (0.1, 0.05):
        logits = (BASE.log() + step * away).requires_grad_()
        policy = logits.detach().softmax(0)
        kl = estimate(logits, DRAWN)
        (slope,) = torch.autograd.grad(kl, logits)
        true, true_slope = (BASE * (BASE / policy).log()).sum(), policy - BASE
        errors.append([abs(kl - true).item(), (slope - true_slope).norm().item()])
    for order, (coarse, fine) in zip((3, 2), zip(*errors, strict=True), strict=True):
        assert math.log2(coarse / fine) == pytest.approx(order, abs=0.15), "value to second order, gradient to first"


def test_the_estimate_by_hand_and_nothing_to_learn_where_the_policy_is_the_base() -> None:
    logits = torch.tensor([0.25, 0.25, 0.5], dtype=torch.float64).log()
    ln_2 = math.log(2)
    assert estimate(logits, DRAWN).item() == pytest.approx((2 * ln_2**2 + ln_2**2) / 4 / 2)
    few, logits = torch.tensor([2]), BASE.log().requires_grad_()
    (slope,) = torch.autograd.grad(estimate(logits, few), logits)
    assert slope.abs().max() == 0, "a few drawings are not learned by heart"
    (slope,) = torch.autograd.grad(sft_loss(logits.log_softmax(0)[few]), logits)
    assert slope.abs().max() > 0.1


def test_rows_are_the_objectives_and_the_drawings_beside_them_know_no_verdict(candidates: list[Candidate]) -> None:
    yes = dict.fromkeys((c.id for c in candidates), 1.0)
    mixed = {c.id: (-1.0) ** i for i, c in enumerate(candidates)}
    held = KLToBase(SFT(threshold=0.6))
    assert held.threshold == 0.6 and held.needs_reference
    assert [row.row for row in held.rows(candidates, mixed)] == SFT(threshold=0.6).rows(candidates, mixed)
    beside = [[row.base.id for row in held.rows(candidates, logits)] for logits in (yes, mixed)]
    assert len(beside[0]) == 12 and beside[0][: len(beside[1])] == beside[1]
    first_round = {c.id for c in candidates if c.round == 0}
    assert set(beside[0]) == first_round and len(set(beside[0][:6])) == 6, "each once before any comes again"
    pair = KLToBase(DPO()).rows(candidates, mixed)[0]
    assert KLToBase(DPO()).members(pair) == (pair.row.chosen, pair.row.rejected, pair.base)
    assert pair.prompt == pair.row.prompt


def test_a_step_by_hand(janus: Any, candidates: list[Candidate]) -> None:
    held = KLToBase(SFT(), weight=0.7)
    logits = {c.id: 1.0 if c.index else -1.0 for c in candidates}
    rows = held.rows(candidates, logits)
    true = image_likelihoods(janus, candidates)
    references = {name: logp + 3 * i for i, (name, logp) in enumerate(true.items())}
    batch = held.collate(rows, references).to("cpu")
    assert batch.ids == tuple(row.row.id for row in rows) and batch.texts == tuple(row.prompt.text for row in rows)
    result = held.step(janus, batch)
    learned = -sum(true[row.row.id] for row in rows) / (16 * len(rows))
    kl = sum((references[row.base.id] - true[row.base.id]) ** 2 / 2 for row in rows) / (16 * len(rows))
    assert result.logs["kl/generation"].item() == pytest.approx(learned, abs=1e-5)
    assert result.logs["kl/to_base"].item() == pytest.approx(kl, rel=1e-4) and kl > 0
    assert result.loss.item() == pytest.approx(learned + 0.7 * kl, rel=1e-4)
    both = Joint(held, [SwapNegatives(ShapesNegatives(), images=6)])
    torch.manual_seed(0)
    assert both.step(janus, batch).logs["kl/to_base"] == result.logs["kl/to_base"]


def test_the_policy_stays_nearer_to_the_base(new_janus: Any, candidates: list[Candidate]) -> None:
    logits = {c.id: 1.0 if c.index and not c.round else -1.0 for c in candidates}
    drawn, away = [c for c in candidates if c.round == 0], {}
    for weight in (1e-6, 3.0):
        model, held = new_janus(), KLToBase(SFT(), weight)
        references = image_likelihoods(model, drawn)
        # six rows, so that every drawing of the base stands beside one
        batch = held.collate(held.rows(candidates, logits) * 2, references)
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
        for _ in range(10):
            optimizer.zero_grad()
            held.step(model, batch).loss.backward()
            optimizer.step()
        now = image_likelihoods(model, drawn)
        away[weight] = sum(abs(now[name] - references[name]) for name in references)
    assert away[3.0] < 0.5 * away[1e-6]


def test_it_trains_from_the_command_line_and_asks_for_the_base_of_rejected_drawings_too(
    janus_folder: Path, here: Path
) -> None:
    objective = "model.init_args.objective"
    chosen = {
        objective: "unigap.objectives.KLToBase",
        f"{objective}.init_args.generation": "unigap.objectives.SFT",
        f"{objective}.init_args.weight": 0.5,
    }
    assert improve(janus_folder, "c_sft", {**FICKLE, "model.init_args.schedule.every_n_epochs": 1, **chosen}) == 0
    pool = Pool.open(here / "runs/c_sft/pool")
    said = pool.logits("random")
    (key,) = {pool.recipe(0)["weights"]}
    asked = pool.references(key)
    assert any(said[name] < 0 for name in asked), "drawings of the base, whatever the judge said of them"
    with next((here / "runs").rglob("metrics.csv")).open() as file:
        told = [float(row["train/kl/to_base"]) for row in csv.DictReader(file) if row.get("train/kl/to_base")]
    assert told[0] == pytest.approx(0.0, abs=1e-9) and any(kl > 1e-8 for kl in told[1:])


@pytest.mark.parametrize("weight", [0.0, -1.0, math.nan, math.inf])
def test_a_weight_without_sense_is_refused(weight: float) -> None:
    with pytest.raises(ValueError, match="weight must be > 0 and finite"):
        KLToBase(SFT(), weight)
