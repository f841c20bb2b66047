"""A trunk in shards (FSDP2): two processes draw, judge and learn what one does, and a run continues exactly."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from kill_points import differences, left_behind
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy
from sharded_ranks import ONE, STAGE, sharded
from small_runs import expect_error, improve, same, state
from test_two_processes import HERE, environment

from unigap.__main__ import main
from unigap.callbacks.checkpoint_io import StreamedCheckpoints
from unigap.models.engine.sharding import whole
from unigap.models.files.lightning_checkpoint import open_lightning
from unigap.models.janus import Janus
from unigap.pool import Pool
from unigap.stages import SFTStage
from unigap.stages.earlier_stage import load_stage


@pytest.fixture
def own_process_group(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What Lightning sets up for the processes of a run is gone afterwards."""
    before = dict(os.environ)
    yield
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    os.environ.clear()
    os.environ.update(before)


def end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


def run_two(checkpoint: Path, folder: Path) -> None:
    shared = environment(WORLD_SIZE="2", TORCHELASTIC_RUN_ID="test")
    command = [sys.executable, str(HERE / "sharded_ranks.py"), str(checkpoint), str(folder)]
    with contextlib.ExitStack() as stack:
        ranks = []
        for rank in range(2):
            log = stack.enter_context((folder / f"log-{rank}.txt").open("w"))
            env = {**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}
            ranks.append(subprocess.Popen(command, env=env, stdout=log, stderr=log))
            stack.callback(end, ranks[rank])
        for rank, process in enumerate(ranks):
            assert process.wait(900) == 0, (folder / f"log-{rank}.txt").read_text()[-3000:]


def test_two_processes_with_shards_do_what_one_does_and_continue_exactly(
    janus_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_two(janus_folder, tmp_path)
    assert "tensor_parallel_size=1" in (tmp_path / "log-0.txt").read_text()
    (tmp_path / "one").mkdir()
    monkeypatch.chdir(tmp_path / "one")
    assert improve(janus_folder, STAGE, ONE) == 0

    last = Path("runs") / STAGE / "checkpoints" / "last.ckpt"
    one, two = state(last), state(tmp_path / "whole" / last)
    assert one.keys() == two.keys()
    start = {f"model.{name}": tensor for name, tensor in Janus(str(janus_folder)).trainable_state().items()}
    assert one.keys() == start.keys(), "the base has the others"
    assert max((one[name] - start[name]).abs().max().item() for name in one) > 1e-4, "it learned"
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, atol=1e-6, rtol=0, msg=lambda told, name=name: f"{name}: {told}")
    alone = Janus(str(janus_folder))
    load_stage(alone, str(tmp_path / "whole" / last))
    assert all(torch.equal(tensor, two[f"model.{name}"]) for name, tensor in alone.trainable_state().items())

    pools = [Pool.open(tmp_path / name / "runs" / STAGE / "pool") for name in ("one", "whole")]
    assert pools[0].rounds == pools[1].rounds == (0, 1)
    for ours, theirs in zip(*(pool.candidates() for pool in pools), strict=True):
        assert ours.id == theirs.id and np.array_equal(ours.drawing, theirs.drawing), ours.id
    # in other batches, or on other threads, the last bits of a verdict are others
    ours, theirs = ({said.candidate_id: said.logit for said in pool.judgments()} for pool in pools)
    assert ours == pytest.approx(theirs, abs=1e-4)
    start_key = Janus(str(janus_folder)).weights_digest()
    assert pools[0].references(start_key) == pytest.approx(pools[1].references(start_key), abs=1e-4)
    curves = [json.loads((tmp_path / name / "runs" / STAGE / "curves.json").read_text()) for name in ("one", "whole")]
    assert [row["non_unification"] for row in curves[0]] == [row["non_unification"] for row in curves[1]]

    monkeypatch.chdir(tmp_path / "whole")
    uninterrupted = left_behind(STAGE)
    monkeypatch.chdir(tmp_path / "continued")
    assert differences(left_behind(STAGE), uninterrupted) == []
    monkeypatch.chdir(tmp_path / "shards")
    held = StreamedCheckpoints().load_checkpoint(last)
    whole = {"weights": held["state_dict"], "optimizer": held["optimizer_states"]}
    assert differences(in_order(left_behind(STAGE) | whole), in_order(uninterrupted)) == []
    check_shards(last, janus_folder)


def in_order(left: dict[str, Any]) -> dict[str, Any]:
    """What a run left behind, with the moments of each weight in order: Lightning numbers frozen weights too."""
    (optimizer,) = left["optimizer"]
    groups = [group | {"params": len(group["params"])} for group in optimizer["param_groups"]]
    moments = [optimizer["state"][key] for group in optimizer["param_groups"] for key in group["params"]]
    return left | {"optimizer": {"groups": groups, "moments": moments}}


def check_shards(last: Path, base: Path) -> None:
    """Small file, one part of each process, nothing of a replaced checkpoint; exported whole, and damage is noticed."""
    (place,) = last.parent.glob("shards-*")
    parts = sorted(place.iterdir())
    assert [part.name for part in parts] == ["rank-00000.pt", "rank-00001.pt"]
    sizes = [part.stat().st_size for part in parts]
    assert max(sizes) < 1.2 * min(sizes) and sum(sizes) > 5 * last.stat().st_size
    assert improve(base, STAGE, {**ONE, "ckpt_path": last}, "validate") == 0
    assert main(["export", "model", str(Path("runs") / STAGE), "--out", "exported"]) == 0
    alone = Janus(str(base))
    load_stage(alone, str(last))
    exported = Janus("exported").state_dict()
    assert all(torch.equal(tensor, exported[name]) for name, tensor in alone.state_dict().items())
    content, noticed, sound = parts[1].read_bytes(), 0, open_lightning(str(last), "ckpt_path")["state_dict"]
    for at in range(50, len(content), len(content) // 20):
        parts[1].write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        try:
            assert same(open_lightning(str(last), "ckpt_path")["state_dict"], sound), f"byte {at}"
        except ValueError as error:
            assert "rank-00001.pt" in str(error)
            noticed += 1
    assert noticed >= 15
    parts[1].unlink()
    with pytest.raises(ValueError, match=r"rank-00001\.pt.*missing"):
        open_lightning(str(last), "ckpt_path")


def test_what_needs_whole_weights_is_refused(
    janus_folder: Path, here: Path, capsys: pytest.CaptureFixture[str], own_process_group: None
) -> None:
    callback = '[{"class_path": "unigap.callbacks.Guard", "init_args": {"action": "rollback"}}]'
    flags = {**sharded(1), "trainer.limit_val_batches": 1, "trainer.callbacks": callback}
    expect_error(improve(janus_folder, "sft", flags), capsys, "Guard's rollback", "not sharded")
    flags["trainer.callbacks"] = '[{"class_path": "unigap.callbacks.WeightEMA"}]'
    expect_error(improve(janus_folder, "sft", flags), capsys, "weight averaging", "ddp", "lora_rank")


@pytest.mark.parametrize("strategy", [FSDPStrategy, DeepSpeedStrategy])
def test_strategies_that_hide_the_weights_are_refused(new_janus, strategy: type, tmp_path: Path) -> None:
    stage = SFTStage(new_janus())
    stage.trainer = Trainer(accelerator="cpu", logger=False, default_root_dir=tmp_path)
    # such a trainer cannot be made on a CPU or without DeepSpeed
    stage.trainer._accelerator_connector.strategy = strategy.__new__(strategy)
    with pytest.raises(ValueError, match=rf"{strategy.__name__} splits weights .*\.ModelParallelStrategy"):
        stage.configure_model()


def test_a_model_that_is_not_sharded_is_whole(janus: Janus) -> None:
    before = [id(parameter) for parameter in janus.parameters()]
    with whole(janus):
        assert [id(parameter) for parameter in janus.parameters()] == before


def test_weights_in_half_precision_are_trained_by_lora_alone(
    janus_folder: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    half = {"model.init_args.model.init_args.dtype": "bfloat16"}
    expect_error(improve(janus_folder, "sft", half), capsys, "bfloat16", "bf16-mixed", "lora_rank")
    lora = {**half, "model.init_args.model.init_args.lora_rank": 2}
    assert improve(janus_folder, "random_judge", lora) == 0
    trained = state(here / "runs/random_judge/checkpoints/last.ckpt")
    adapter = {tensor.dtype for name, tensor in trained.items() if ".lora_" in name}
    assert adapter == {torch.float32}
