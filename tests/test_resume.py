"""A run that is killed anywhere and continued is the uninterrupted run, bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kill_points import EXACT, STAGES, differences, flags_of, left_behind, points_of, run_killed
from small_runs import expect_error, improve

from unigap.pool import Pool

CASES = [(stage, name) for stage in STAGES for name in points_of(stage)]


@pytest.fixture(scope="module")
def uninterrupted(janus_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict[str, Any]]:
    """What a run of a stage leaves behind when nothing disturbs it."""
    known: dict[str, dict[str, Any]] = {}

    def run(stage: str) -> dict[str, Any]:
        if stage not in known:
            with pytest.MonkeyPatch.context() as patch:
                patch.chdir(tmp_path_factory.mktemp(stage))
                assert improve(janus_folder, stage, flags_of(stage)) == 0
                known[stage] = left_behind(stage)
        return known[stage]

    return run


@pytest.mark.parametrize(("stage", "name"), CASES, ids=[f"{stage}-{name}" for stage, name in CASES])
def test_killed_and_continued_is_uninterrupted(
    stage: str, name: str, uninterrupted: Callable[[str], dict[str, Any]], janus_folder: Path, here: Path
) -> None:
    expected = uninterrupted(stage)
    run_killed(janus_folder, stage, name)
    shards = [path.name for path in here.rglob("shard-*.parquet")]
    assert improve(janus_folder, stage, {**flags_of(stage), "resume": "auto"}) == 0
    found = left_behind(stage)
    assert differences(found, expected) == []
    assert Pool.open(here / "runs" / stage / "pool").verify() == []
    if "sampling" in name or "write of" in name:
        assert shards, "the round was killed half way"


def test_a_killed_round_draws_only_what_is_left(
    janus_folder: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from unigap.models.janus import Janus

    run_killed(janus_folder, "sft", "pool write")
    drawn: list[int] = []
    sample = Janus.sample_images

    def counted(self: Janus, prompt: Any, seeds_BN: Any, recipe: Any) -> Any:
        drawn.append(len(seeds_BN))
        return sample(self, prompt, seeds_BN, recipe)

    monkeypatch.setattr(Janus, "sample_images", counted)
    assert improve(janus_folder, "sft", {**EXACT, "resume": "auto"}) == 0
    prompts = len(Pool.open(here / "runs/sft/pool").prompts()[0])
    assert sum(drawn) == prompts - 4, "one batch of four prompts was safe in a shard"


def test_resume_says_which_run_it_means(janus_folder: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = {**EXACT, "trainer.max_epochs": 1}
    expect_error(improve(janus_folder, "sft", {**small, "resume": "must"}), capsys, "last.ckpt", "begin anew")
    assert not list(here.rglob("*.parquet"))
    assert improve(janus_folder, "sft", {**small, "resume": "auto"}) == 0
    last = here / "runs/sft/checkpoints/last.ckpt"
    before = last.read_bytes()
    expect_error(improve(janus_folder, "sft", small), capsys, "earlier run", "--resume must")
    expect_error(
        improve(janus_folder, "sft", {**small, "resume": "must", "ckpt_path": last}), capsys, "both name a checkpoint"
    )
    assert last.read_bytes() == before
    assert improve(janus_folder, "sft", {**small, "resume": "must", "trainer.max_epochs": 2}) == 0
    assert last.read_bytes() != before


@pytest.mark.parametrize(
    "trigger", ["every_n_train_steps: 1", "save_on_train_epoch_end: false", "save_on_exception: true"]
)
def test_a_checkpoint_nothing_can_continue_from_is_refused(
    trigger: str, janus_folder: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stock = f"[{{class_path: lightning.pytorch.callbacks.ModelCheckpoint, init_args: {{{trigger}}}}}]"
    status = improve(janus_folder, "sft", {**EXACT, "trainer.callbacks": stock})
    expect_error(status, capsys, "ModelCheckpoint saves in the middle of an epoch", "--checkpoint")
    assert not list(here.rglob("*.parquet"))
