"""The guidance a checkpoint asks for is read from its folder, drawn with unless told otherwise, and saved again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from small_runs import expect_error, shrink_demo

from unigap.__main__ import main
from unigap.models.families import load_model
from unigap.models.janus import Janus

WRITTEN = {
    "janus": ("generation_config.json", "guidance_scale"),
    "emu3": ("generation_config.json", "guidance_scale"),
    "showo": ("config.json", "cfg"),
}


def ask_for(scale: float, family: str, folder: Path) -> None:
    name, key = WRITTEN[family]
    path = folder / name
    path.write_text(json.dumps({**json.loads(path.read_text()), key: scale}))


@pytest.mark.parametrize("family", WRITTEN)
def test_it_is_read_and_saved_again(family: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    folder: Path = request.getfixturevalue(f"{family}_folder")
    assert load_model(str(folder)).usual_cfg == (1.5 if family == "showo" else 1), "the untrained's"
    copy = shutil.copytree(folder, tmp_path / "asking")
    ask_for(3.5, family, copy)
    model = load_model(str(copy))
    assert model.usual_cfg == 3.5
    model.save(tmp_path / "saved")
    assert load_model(str(tmp_path / "saved")).usual_cfg == 3.5


@pytest.mark.filterwarnings("ignore:The number of training batches")
def test_gap_and_demo_draw_with_it(janus_folder: Path, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:

    copy, drawn = shutil.copytree(janus_folder, here / "asking"), []
    ask_for(3.5, "janus", copy)
    draw = Janus.sample_images
    monkeypatch.setattr(Janus, "sample_images", lambda *given: drawn.append(given[-1].cfg) or draw(*given))
    few = ["--checkpoint", str(copy), "--per_cell", "1", "--candidates", "1"]
    assert main(["gap", *few]) == 0 and set(drawn) == {3.5}
    drawn.clear()
    assert main(["gap", *few, "--cfg", "2"]) == 0 and set(drawn) == {2}
    drawn.clear()
    judge = {"model.init_args.judge": {"class_path": "unigap.judges.RandomJudge"}}
    shrink_demo(monkeypatch, {"data.init_args.per_cell": 1, "summary.plan.candidates": 1, **judge})
    assert main(["demo", "--checkpoint", str(copy), "--out", "demo"]) == 0
    assert set(drawn) == {3.5} and json.loads((here / "demo/demo.json").read_text())["cfg"] == 3.5


def test_a_scale_below_one_is_refused(showo_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = shutil.copytree(showo_folder, tmp_path / "asking")
    ask_for(0.5, "showo", copy)
    expect_error(main(["gap", "--checkpoint", str(copy)]), capsys, "asking", "cfg must be >= 1")
