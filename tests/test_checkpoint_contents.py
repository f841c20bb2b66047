"""Checkpoints hold what trains and leave out what the base gives."""

from __future__ import annotations

import resource
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from kill_points import differences, left_behind
from lightning.pytorch import Callback, LightningModule, Trainer
from safetensors.torch import load_file, save_file
from small_runs import FICKLE, expect_error, improve, same, state

from unigap.__main__ import main
from unigap.cli.commands.model_choice import ModelChoice
from unigap.models.files.frozen_base import FROZEN_BASE
from unigap.models.janus import Janus

LORA = {**FICKLE, "model.init_args.model.init_args.lora_rank": 2}
LAST = Path("runs/sft/checkpoints/last.ckpt")
FROZEN = "model.language_model.embed_tokens.weight"


def change_base(folder: Path) -> None:
    """Another embedding table, in a sound file."""
    weights = load_file(folder / "model.safetensors")
    weights[FROZEN] += 1
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def with_everything(last: Path, base: Path) -> None:
    """Make a checkpoint one of an earlier version, which held the frozen weights too."""
    held: dict[str, Any] = torch.load(last, weights_only=True)
    whole = {f"model.{name}": tensor for name, tensor in Janus(str(base), lora_rank=2).state_dict().items()}
    del held[FROZEN_BASE]
    torch.save(held | {"state_dict": whole | held["state_dict"]}, last)


@pytest.fixture(scope="module")
def adapted(janus_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a copy of the small Janus, ``base``, and a run of one epoch that trained an adapter for it."""
    folder = tmp_path_factory.mktemp("adapted")
    shutil.copytree(janus_folder, folder / "base")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert improve(Path("base"), "sft", {**LORA, "trainer.max_epochs": 1}) == 0
    return folder


@pytest.fixture
def run(adapted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of that folder, as the working directory."""
    shutil.copytree(adapted, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def test_an_adapter_is_saved_without_its_base(run: Path) -> None:
    held = torch.load(LAST, weights_only=True)
    base = Janus("base", lora_rank=2)
    trained = sum(p.numel() * p.element_size() for p in base.trainable_state().values())
    assert held["state_dict"].keys() == {f"model.{name}" for name in base.trainable_state()}
    assert held[FROZEN_BASE]["names"] == [name for name in base.state_dict() if ".lora_" not in name]
    # weights, two moments, and what does not grow with the model
    assert LAST.stat().st_size < 3 * trained + 150_000 < sum(p.nbytes for p in base.state_dict().values())


def test_a_run_continues_from_older_checkpoints_that_hold_everything(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(run, tmp_path / "older")
    ends = []
    for folder in (run, tmp_path / "older"):
        monkeypatch.chdir(folder)
        if folder != run:
            with_everything(LAST, Path("base"))
        assert improve(Path("base"), "sft", {**LORA, "resume": "must"}) == 0
        ends.append(left_behind("sft"))
    assert differences(*ends) == []


@pytest.mark.parametrize("older", [False, True])
def test_a_later_stage_and_the_verbs_take_the_rest_from_the_base(run: Path, older: bool) -> None:
    trained = state(LAST)
    if older:
        with_everything(LAST, Path("base"))
    loaded = ModelChoice("runs/sft").load()
    start = Janus("base", lora_rank=2).state_dict()
    for name, tensor in loaded.state_dict().items():
        assert torch.equal(tensor, trained.get(f"model.{name}", start[name])), name
    half = ModelChoice("runs/sft", dtype="bfloat16").load()
    assert torch.equal(half.state_dict()[f"net.{FROZEN}"], start[f"net.{FROZEN}"].bfloat16())
    assert main(["inspect", str(LAST)]) == 0
    assert main(["export", "model", "runs/sft", "--out", "merged"]) == 0
    assert improve(Path("base"), "dpo", {**LORA, "model.init_args.init_from": LAST, "trainer.max_epochs": 1}) == 0


def test_another_base_is_refused_by_both_names(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change_base(run / "base")
    parts = ("was trained on the base checkpoint 'base' (frozen weights", "this model has others", "give the same base")
    start = {**LORA, "model.init_args.init_from": LAST}
    expect_error(improve(Path("base"), "dpo", start), capsys, f"init_from '{LAST}'", *parts)
    expect_error(improve(Path("base"), "sft", {**LORA, "resume": "must"}), capsys, "checkpoint", *parts)
    expect_error(main(["export", "model", "runs/sft", "--out", "merged"]), capsys, *parts)
    expect_error(main(["gap", "--checkpoint", "runs/sft"]), capsys, *parts)
    assert not Path("merged").exists()


def test_a_full_disk_is_said_in_one_line_and_the_old_checkpoint_stays(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, (soft, hard) = LAST.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, hard))
    try:
        status = improve(Path("base"), "sft", {**LORA, "resume": "must"})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    expect_error(status, capsys, f"cannot write {LAST}: File too large", "free some space")
    assert LAST.read_bytes() == before
    assert sorted(path.name for path in LAST.parent.glob("*ckpt*")) == ["last.ckpt"]


class Meddler(Callback):
    """Changes a frozen weight in the first epoch."""

    @torch.no_grad()
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch == 0:
            pl_module.get_parameter(f"model.net.{FROZEN}").mul_(1.001)


def test_frozen_weights_that_something_changed_are_kept(janus_folder: Path, here: Path) -> None:
    flags = {**LORA, "trainer.callbacks": f"{__name__}.Meddler", "trainer.max_epochs": 1}
    assert improve(janus_folder, "sft", flags) == 0
    changed, own = state(LAST)[f"model.net.{FROZEN}"], Janus(str(janus_folder)).state_dict()[f"net.{FROZEN}"]
    assert torch.equal(changed, own * 1.001)
    assert torch.equal(ModelChoice("runs/sft").load().state_dict()[f"net.{FROZEN}"], changed)
    assert improve(janus_folder, "sft", {**flags, "trainer.max_epochs": 2, "resume": "must"}) == 0
    assert torch.equal(state(LAST)[f"model.net.{FROZEN}"], changed)


def test_what_an_earlier_stage_trained_is_kept_by_a_stage_that_freezes_it(janus_folder: Path, here: Path) -> None:
    part = "model.init_args.model.init_args.train_also"
    assert improve(janus_folder, "sft", {**FICKLE, part: "generation_head", "trainer.max_epochs": 1}) == 0
    later = {**FICKLE, "model.init_args.init_from": LAST, "trainer.max_epochs": 1}
    assert improve(janus_folder, "dpo", later) == 0
    first, second = (
        {name: tensor for name, tensor in state(path).items() if ".generation_head." in name}
        for path in (LAST, Path("runs/dpo/checkpoints/last.ckpt"))
    )
    assert first and same(first, second)
    exported = ModelChoice("runs/dpo").load().state_dict()
    assert all(torch.equal(exported[name.removeprefix("model.")], tensor) for name, tensor in first.items())


@pytest.mark.parametrize("flags", [{}, {"trainer.accumulate_grad_batches": 2}])
def test_a_part_that_the_loss_does_not_use_is_refused(
    janus_folder: Path, here: Path, capsys: pytest.CaptureFixture[str], flags: dict[str, object]
) -> None:
    also = {"model.init_args.model.init_args.train_also": "aligner"}
    status = improve(janus_folder, "sft", {**FICKLE, **also, **flags})
    expect_error(status, capsys, "no part in the loss of SFT", "aligner.fc1", "generation_aligner")
