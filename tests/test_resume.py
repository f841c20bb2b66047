"""A run that is killed anywhere and continued is the uninterrupted run, bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kill_points import (
    EXACT,
    STAGES,
    copy_at_kill_points,
    differences,
    flags_of,
    left_behind,
    points_of,
    run_killed,
    run_stopped,
    signals_of,
)
from small_runs import expect_error, improve

from unigap.pool import Pool

CASES = [(stage, name) for stage in STAGES for name in points_of(stage)]


@pytest.fixture(scope="module")
def undisturbed(
    janus_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], tuple[dict[str, Any], Path]]:
    """What a run of a stage leaves behind when nothing disturbs it, and a folder with its files at each kill point."""
    known: dict[str, tuple[dict[str, Any], Path]] = {}

    def run(stage: str) -> tuple[dict[str, Any], Path]:
        if stage not in known:
            copies = tmp_path_factory.mktemp(stage)
            known[stage] = (copy_at_kill_points(janus_folder, stage, copies, flags_of(stage)), copies)
        return known[stage]

    return run


@pytest.mark.parametrize(("stage", "name"), CASES, ids=[f"{stage}-{name}" for stage, name in CASES])
def test_killed_and_continued_is_uninterrupted(
    stage: str,
    name: str,
    undisturbed: Callable[[str], tuple[dict[str, Any], Path]],
    janus_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    expected, copies = undisturbed(stage)
    monkeypatch.chdir(copies / name)
    check_half_way(name, copies / name)
    check_continued(janus_folder, stage, expected)


@pytest.mark.parametrize("stage", STAGES)
def test_stopped_again_and_again_and_continued_is_uninterrupted(
    stage: str, undisturbed: Callable[[str], tuple[dict[str, Any], Path]], janus_folder: Path, here: Path
) -> None:
    expected, _ = undisturbed(stage)
    for name in signals_of(stage):
        run_stopped(janus_folder, stage, name)
        check_half_way(name, here)
    check_continued(janus_folder, stage, expected)


def check_half_way(name: str, folder: Path) -> None:
    """A round that is killed or stopped half way has shards."""
    if "sampling" in name or "write of" in name:
        assert [path.name for path in folder.rglob("shard-*.parquet")], name


def check_continued(checkpoint: Path, stage: str, expected: dict[str, Any]) -> None:
    """Continue the run in the present folder to its end; it is the uninterrupted run."""
    assert improve(checkpoint, stage, {**flags_of(stage), "resume": "auto"}) == 0
    assert differences(left_behind(stage), expected) == []
    assert Pool.open(Path("runs") / stage / "pool").verify() == []


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
