"""The rehearsal of a published model, narrow and two layers deep, in this process where nothing is killed."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest

from benchmarks import rehearsal
from benchmarks.rehearsal import Figure, Outcome, Phase
from unigap.__main__ import main

SMALL = ["--layers", "2", "--image_tokens", "16", "--narrow"]
perform = rehearsal.perform


def perform_here(phase: Phase, log: Path) -> Outcome:
    """Run a phase as a call; one that has to die runs as a process."""
    if phase.status:
        return perform(phase, log)
    module, arguments = phase.arguments[1], list(phase.arguments[2:])
    status = main(arguments) if module == "unigap" else importlib.import_module(module).main(arguments)
    assert not status, f"{phase.name}: {status}"
    return Outcome(phase.name, 0.0, 0)


def test_a_narrow_janus_pro_goes_all_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rehearsal, "perform", perform_here)
    folder = tmp_path / "all"
    assert rehearsal.main(["--family", "janus-pro-1b", *SMALL, "--parts", "lora", "dpo", "--folder", str(folder)]) == 0
    found = json.loads((folder / "rehearsal.json").read_text())
    assert [phase["name"] for phase in found["phases"]][3:6] == [
        "fit, SFT, lora, killed in epoch 2", "fit, SFT, lora, continued", "fit, DPO, LoRA",
    ]  # fmt: skip
    assert found["disk"]["checkpoint"] > found["disk"]["checkpoint of lora"] / 2
    assert len((folder / "clean.jsonl").read_text().splitlines()) == 3, "the audit leaves out what is tested"


@pytest.mark.parametrize("family", ["show-o", "emu3"])
def test_the_other_families_are_written_as_published_and_read(family: str, tmp_path: Path) -> None:
    size = rehearsal.Size(layers=2, image_tokens=16, narrow=True)
    rehearsal.write_inputs(family, size, tmp_path)
    (tmp_path / "clean.jsonl").write_text(json.dumps({"text": "two green cups"}) + "\n")
    first = next(iter(rehearsal.phases(family, size, tmp_path, ["lora"])))
    perform_here(first, tmp_path / "log")
    assert main(["fit", "--config", str(tmp_path / "lora.yaml")]) == 0
    (figure,) = rehearsal.figures(family, tmp_path, ["lora"])
    assert figure.holds, figure


@pytest.mark.parametrize(("found", "holds"), [(12_000_000, True), (11_999_999, False), (14_000_000, False)])
def test_a_checkpoint_of_another_size_is_not_confirmed(found: int, holds: bool) -> None:
    assert Figure("checkpoint", 12_000_000, found).holds is holds


def test_a_phase_that_ends_otherwise_fails_the_rehearsal(tmp_path: Path) -> None:
    with pytest.raises(rehearsal.Failed, match="broken: status 3, expected 0\nno room"):
        perform(Phase("broken", ["-c", "import sys; print('no room'); sys.exit(3)"]), tmp_path / "log")


def test_an_image_is_square(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="--image_tokens 15 is not a square number; take 9"):
        rehearsal.Size(layers=2, image_tokens=15).grid  # noqa: B018
