"""Training that goes wrong says so, names the batch, and keeps the last good checkpoint."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import expect_error, improve, state

from unigap.loop import references
from unigap.models.base import UnifiedModel
from unigap.objectives import SFT, RowBatch, StepResult
from unigap.pool import Pool

LAST = Path("runs/sft/checkpoints/last.ckpt")
Spoil = Callable[[StepResult], StepResult]


def spoil_loss(result: StepResult) -> StepResult:
    return dataclasses.replace(result, loss=result.loss * math.nan)


def spoil_gradient(result: StepResult) -> StepResult:
    """The loss stays as it is; the slope of a root at zero is infinite."""
    return dataclasses.replace(result, loss=result.loss + (result.loss * 0).sqrt())


def spoil_likelihood(result: StepResult) -> StepResult:
    """The loss forgives an infinite margin, the weights would not."""
    return dataclasses.replace(result, logs={"dpo/chosen": torch.tensor(math.inf)})


@pytest.mark.parametrize(
    ("spoil", "told"),
    [(spoil_loss, "the loss is nan"), (spoil_gradient, "the gradient is nan"), (spoil_likelihood, "dpo/chosen is inf")],
)
def test_what_is_not_finite_stops_the_run_and_names_the_batch(
    spoil: Spoil,
    told: str,
    janus_folder: Path,
    here: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    step, seen, good = SFT.step, [], []

    def wrong_in_the_second_epoch(self: SFT, model: UnifiedModel, batch: RowBatch) -> StepResult:
        seen.append(batch.ids)
        if len(seen) < 4:
            return step(self, model, batch)
        good.append(LAST.read_bytes())
        return spoil(step(self, model, batch))

    with monkeypatch.context() as patch:
        patch.setattr(SFT, "step", wrong_in_the_second_epoch)
        status = improve(janus_folder, "sft")
    expect_error(status, capsys, told, "at step 3", *seen[-1][:2], "and 2 more", "resume from the last")
    assert [LAST.read_bytes()] == good
    assert all(tensor.isfinite().all() for tensor in state(LAST).values())
    assert improve(janus_folder, "sft", {"ckpt_path": LAST}) == 0


def test_a_learning_rate_that_blows_up_is_noticed(
    janus_folder: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = {"model.init_args.lr": 1e30, "model.init_args.warmup_steps": 0}
    expect_error(improve(janus_folder, "sft", flags), capsys, "at step 1 on rows", "lower the learning rate")


def test_a_reference_that_is_not_finite_stops_before_the_first_step(
    janus_folder: Path, here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = references.image_likelihoods

    def broken(model: UnifiedModel, candidates: Sequence[Any], batch_size: int) -> Mapping[str, float]:
        return {**measured(model, candidates, batch_size), candidates[0].id: -math.inf}

    with monkeypatch.context() as patch:
        patch.setattr(references, "image_likelihoods", broken)
        expect_error(improve(janus_folder, "dpo"), capsys, "reference of candidate", "-inf", "must be finite")
    assert not list(here.rglob("*.ckpt"))
    assert Pool.open("runs/dpo/pool").verify() == []
    assert improve(janus_folder, "dpo") == 0


def test_an_empty_pool_is_a_clear_end_that_can_be_gone_on_from(
    janus_folder: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expect_error(improve(janus_folder, "ceiling"), capsys, "accepted nothing to train on", "lower the threshold")
    pool = Pool.open("runs/ceiling/pool")
    assert pool.verify() == [] and pool.rounds == (0,) and pool.candidates()
    assert improve(janus_folder, "ceiling", {"model.init_args.objective.init_args.threshold": 1e-9}) == 0


@pytest.mark.parametrize(("threshold", "flagged"), [(1e-30, 1), (0.5, 0)])
def test_a_judge_that_accepts_everything_is_flagged_once(
    threshold: float, flagged: int, janus_folder: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = {"model.init_args.judge": "unigap.judges.RandomJudge"}
    flags["model.init_args.objective.init_args.threshold"] = str(threshold)
    assert improve(janus_folder, "sft", flags) == 0
    said = [line for line in capsys.readouterr().err.splitlines() if "accepted all" in line]
    assert len(said) == flagged
    assert all(line.startswith("warning: pool runs/sft/pool: the judge accepted all 60 candidates") for line in said)
