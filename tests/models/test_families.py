"""The family of a checkpoint follows from its config.json, in a folder or in the hub's cache, without network."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from small_emu3 import save_small_emu3
from small_runs import expect_error

import unigap.models
from unigap.__main__ import main
from unigap.models.emu3 import Emu3
from unigap.models.families import FAMILIES, load_model
from unigap.models.janus import Janus

Publish = Callable[[str], Path]
COMMIT = "0" * 40


@pytest.fixture
def publish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Publish:
    """Return a function that adds an empty folder for an id to the hub's cache; other files cannot be downloaded."""
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
        expect_error(
            status, capsys, "'nobody/nothing' cannot be downloaded from the hub", "check its name, or give a folder"
        )


def test_every_family_has_the_files_that_the_readme_lists() -> None:
    folder = Path(unigap.models.__file__).parent
    names = set(re.findall(r"^\| `(\w+\.py)` \|", (folder / "README.md").read_text(encoding="utf-8"), re.MULTILINE))
    families = {path.parent for path in folder.glob("*/model.py")}
    assert len(families) == len(FAMILIES) and len(names) == 6
    for family in families:
        files = {path.name for path in family.iterdir()}
        assert names <= files and ("likelihood.py" in files) != ("flow.py" in files), family.name
