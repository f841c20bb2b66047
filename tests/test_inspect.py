"""``unigap inspect``: what would be imported and written is told, and nothing is imported."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from desk import CODE, EXECUTED, Bomb
from small_runs import CONFIGS

from unigap.__main__ import main


def inspect(capsys: pytest.CaptureFixture[str], target: object) -> str:
    capsys.readouterr()
    assert main(["inspect", str(target)]) == 0
    assert not Path(EXECUTED).exists(), "code was run"
    return capsys.readouterr().out


def test_a_config_says_what_it_imports_and_writes(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("own_module.py").write_text(CODE)
    Path("mine.yaml").write_text(
        "model:\n  class_path: own_module.Stage\n  init_args: {judge: own_module.Judge, lr: 0.1}\n"
        "data: {class_path: nowhere.at.all.Data, init_args: {pool: runs/x/pool}}\n"
        "trainer:\n  callbacks: [{class_path: unigap.callbacks.RowLog, init_args: {path: runs/x/rows.jsonl}}]\n"
        "summary: {folder: runs/x}\n"
    )
    told = inspect(capsys, "mine.yaml")
    for name in ("Stage", "Judge"):
        (line,) = (line for line in told.splitlines() if f"own_module.{name}" in line)
        assert "own_module.py, in the working directory" in line
    assert "imports nowhere.at.all.Data  (data.class_path; not found here)" in told
    assert "unigap.callbacks.RowLog  (trainer.callbacks.0.class_path; unigap's own)" in told
    for place, option in (
        ("runs/x/pool", "data.init_args.pool"),
        ("runs/x/rows.jsonl", "trainer.callbacks.0.init_args.path"),
        ("runs/x", "summary.folder"),
    ):
        assert f"  writes to {place}  ({option})" in told


@pytest.mark.parametrize("config", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_config_imports_unigap_and_lightning_only(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    imported = [line.split()[1] for line in inspect(capsys, config).splitlines() if line.startswith("  imports")]
    assert imported and {name.split(".")[0] for name in imported} <= {"unigap", "lightning"}


def test_a_model_folder_says_what_it_names(janus_folder: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(janus_folder, "model")
    config = json.loads(Path("model/config.json").read_text()) | {"auto_map": {"AutoModel": "own.Own"}}
    Path("model/config.json").write_text(json.dumps(config))
    Path("model/own.py").write_text(CODE)
    torch.save({"x": Bomb()}, "model/pytorch_model.bin")
    torch.save({"x": torch.zeros(1)}, "model/plain.ckpt")
    told = inspect(capsys, "model")
    assert "imports JanusForConditionalGeneration  (architectures.0" in told
    assert "imports own.Own  (auto_map.AutoModel" in told
    assert "model/own.py: Python code" in told
    assert "model/pytorch_model.bin: a pickle that would import" in told and "system" in told
    assert "model/plain.ckpt: tensors and plain values; it imports nothing" in told
