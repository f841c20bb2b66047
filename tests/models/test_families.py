"""A checkpoint is known by its config.json, in a folder or in the hub's cache, with no network."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from small_emu3 import save_small_emu3
from small_runs import expect_error

from unigap.__main__ import main
from unigap.models.emu3 import Emu3
from unigap.models.families import load_model
from unigap.models.janus import Janus

Publish = Callable[[str], Path]
COMMIT = "0" * 40


@pytest.fixture
def publish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Publish:
    """Makes an empty folder that the hub's cache holds under an id; whatever is not in it cannot be had."""
    cache = tmp_path / "cache"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)

    def begin(name: str) -> Path:
        repository = cache / f"models--{name.replace('/', '--')}"
        (repository / "refs").mkdir(parents=True)
        (repository / "refs" / "main").write_text(COMMIT)
        return repository / "snapshots" / COMMIT

    return begin


def test_a_hub_id_is_loaded_as_its_family(publish: Publish, janus_folder: Path) -> None:
    shutil.copytree(janus_folder, publish("somebody/drawer"))
    save_small_emu3(publish("somebody/painter"))
    model = load_model("somebody/drawer")
    assert type(model) is Janus and model.weights_digest() == Janus(str(janus_folder)).weights_digest()
    assert type(load_model("somebody/painter")) is Emu3
    with pytest.raises(ValueError, match="'somebody/painter' is a 'emu3' model, not 'janus'"):
        Janus("somebody/painter")


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("qwen2_vl", "is a 'qwen2_vl' model, not 'janus' or 'show-o' or 'emu3'"),
        (None, "is a 'unknown' model"),
        ("multi_modality", "take deepseek-community/Janus-Pro-1B"),
        ("show-o", "Show-o loads from a folder that unigap wrote; download it"),
    ],
)
def test_a_hub_id_of_another_kind_is_named(
    kind: str | None, told: str, publish: Publish, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = publish("somebody/drawer")
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"model_type": kind, "auto_map": {"AutoConfig": "code.Config"}}))
    (folder / "code.py").write_text("raise SystemExit('code of a checkpoint was run')")
    expect_error(main(["gap", "--checkpoint", "somebody/drawer"]), capsys, "'somebody/drawer'", told)


def test_a_hub_id_that_cannot_be_had_is_one_line(publish: Publish, capsys: pytest.CaptureFixture[str]) -> None:
    for verb in (["gap"], ["calibrate"]):
        status = main([*verb, "--checkpoint", "nobody/nothing"])
        expect_error(status, capsys, "'nobody/nothing' cannot be had from the hub", "check its name, or give a folder")
