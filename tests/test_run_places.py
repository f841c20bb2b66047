"""One option says where a run lies, and no run writes over another one."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from small_runs import (
    CHECKPOINT,
    FICKLE,
    POOL,
    PRETRAIN,
    SUMMARY,
    TRAINER,
    expect_error,
    improve,
    same,
    state,
    tree,
    words,
)

from unigap.__main__ import main
from unigap.pool import Pool

SHORT = {**FICKLE, "trainer.max_epochs": 1}
MEASURED = {**SHORT, **SUMMARY, "summary.folder": "null"}
SEALED = {"seals.json", ".lock"}
"""Left beside every sealed file."""
OF_A_RUN = {"checkpoints", "config.yaml", "curves.json", "logs", "pool", "rows.jsonl"}


@pytest.fixture(scope="module")
def measured(janus_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with one finished run, ``runs/sft``; leave it as it is."""
    folder = tmp_path_factory.mktemp("measured")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert improve(janus_folder, "sft", MEASURED) == 0
    return folder


def test_everything_lies_in_the_run_folder(measured: Path) -> None:
    assert [path.name for path in measured.iterdir()] == ["runs"], "nothing falls into the working directory"
    run = measured / "runs/sft"
    assert {path.name for path in run.iterdir()} >= {*OF_A_RUN, "summary.json", "gallery.json"}
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert (
        config["run"] == "runs/sft"
        and (run / "checkpoints/config.yaml").read_bytes() == (run / "config.yaml").read_bytes()
    )
    placed = [config["data"]["init_args"]["pool"], config["checkpoint"]["folder"], config["summary"]["folder"]]
    assert placed == [None, None, None], "what follows the run is recorded as such"


def test_a_control_that_changes_pool_and_checkpoints_alone_is_refused(
    janus_folder: Path, measured: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(measured)
    before = tree(measured)
    control = {**MEASURED, "data.pool": "runs/control/pool", "checkpoint.folder": "runs/control/checkpoints"}
    told = ("run folder runs/sft", "of another run", "--run")
    expect_error(improve(janus_folder, "sft", control), capsys, *told)
    for resume in ("auto", "must"):
        status = improve(janus_folder, "sft", {**control, "resume": resume})
        expect_error(status, capsys, *(told if resume == "auto" else ["there is no"]))
    apart = {**MEASURED, "run": "runs/control"}
    for option in ("summary.folder", "curves.folder"):
        expect_error(improve(janus_folder, "sft", {**apart, option: "runs/sft"}), capsys, "of another run")
    expect_error(improve(janus_folder, "sft", {**apart, "rows.path": "runs/sft/rows.jsonl"}), capsys, "rows.jsonl")
    strange = {**apart, "curves.folder": "runs/sft", "ckpt_path": "runs/sft/checkpoints/last.ckpt"}
    expect_error(improve(janus_folder, "sft", strange), capsys, "of another run")
    assert tree(measured) == before, "a refused run leaves nothing behind and changes nothing"


def test_a_run_that_was_killed_before_its_first_checkpoint_is_begun_again(
    janus_folder: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert improve(janus_folder, "sft", SHORT) == 0
    first = state(here / "runs/sft/checkpoints/last.ckpt")
    (here / "runs/sft/checkpoints/last.ckpt").unlink()
    capsys.readouterr()
    expect_error(improve(janus_folder, "sft", SHORT), capsys, "curves.json is of an earlier run", "--resume auto")
    assert improve(janus_folder, "sft", {**SHORT, "resume": "auto"}) == 0
    assert same(state(here / "runs/sft/checkpoints/last.ckpt"), first)
    assert len((here / "runs/sft/rows.jsonl").read_text().splitlines()) == 1


def test_parts_can_be_set_apart_and_switched_off(janus_folder: Path, here: Path) -> None:
    flags = {
        **SHORT,
        "run": "a",
        "data.pool": "shared",
        "curves.folder": "",
        "rows.path": "",
        "trainer.logger": "false",
    }
    assert improve(janus_folder, "sft", flags) == 0
    assert {path.name for path in here.iterdir()} == {"a", "shared"}
    assert {path.name for path in (here / "a").iterdir()} == {"checkpoints", "config.yaml", *SEALED}
    assert Pool.open("shared").rounds == (0,)
    config = yaml.safe_load((here / "a/config.yaml").read_text())
    assert config["data"]["init_args"]["pool"] == "shared", "what was set apart stays apart"


def test_callbacks_that_a_config_lists_are_not_doubled(janus_folder: Path, here: Path) -> None:
    listed = "[{class_path: CurveLog, init_args: {folder: mine}}, {class_path: RowLog, init_args: {path: mine/rows}}]"
    assert improve(janus_folder, "sft", {**SHORT, "trainer.callbacks": listed}) == 0
    assert {path.name for path in (here / "mine").iterdir()} == {"curves.json", "rows", *SEALED}
    assert not (here / "runs/sft/curves.json").exists() and not (here / "runs/sft/rows.jsonl").exists()


def test_pretraining_lies_in_its_run_folder_too(here: Path) -> None:
    assert main(words("fit", "pretrain", {**TRAINER, **PRETRAIN, "run": "mine"})) == 0
    assert [path.name for path in here.iterdir()] == ["mine"]
    assert (here / "mine/model/model.safetensors").is_file() and (here / "mine/checkpoints/last.ckpt").is_file()


@pytest.mark.parametrize("verb", ["fit", "predict"])
def test_a_verb_that_writes_asks_where(
    verb: str, janus_folder: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expect_error(improve(janus_folder, "sft", {"run": "null"}, verb=verb), capsys, f"{verb} needs", "--run runs/NAME")
    (here / "file").write_text("mine")
    expect_error(improve(janus_folder, "sft", {"run": "file"}, verb=verb), capsys, "--run 'file' is a file")
    assert [path.name for path in here.iterdir()] == ["file"]


def test_explicit_folders_need_no_run(janus_folder: Path, here: Path) -> None:
    flags = {**TRAINER, **POOL, **SHORT, CHECKPOINT: janus_folder, "run": "null"}
    flags |= {"data.pool": "old/pool", "checkpoint.folder": "old/checkpoints"}
    assert main(words("fit", "sft", flags)) == 0
    assert {path.name for path in (here / "old").iterdir()} == OF_A_RUN | SEALED
