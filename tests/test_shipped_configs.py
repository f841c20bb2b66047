"""The configs that come with the package: listed, shown, copied, and found by name."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_runs import TRAINER

from unigap.__main__ import main
from unigap.console.shipped_configs import first_comment, shipped_configs

ROOT = Path(__file__).parents[1]


def test_every_config_is_shipped_with_a_sentence_on_top() -> None:
    known = shipped_configs()
    assert {file.resolve() for file in known.values()} == set((ROOT / "configs").rglob("*.yaml"))
    unsaid = [name for name, file in known.items() if not first_comment(file).endswith(".")]
    assert not unsaid, "the first line is what unigap configs lists"


def test_they_are_listed_shown_and_copied(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (ROOT / "configs/shapes/sft.yaml").read_text()
    assert main(["configs"]) == 0
    listed = capsys.readouterr().out.splitlines()
    assert len(listed) == len(shipped_configs())
    assert any(line.split(maxsplit=1) == ["shapes/sft", text.splitlines()[0][2:]] for line in listed)
    assert main(["configs", "show", "shapes/sft"]) == 0
    assert capsys.readouterr().out == text
    assert (
        main(["configs", "copy", "shapes/sft"]) == 0 and main(["configs", "copy", "wandb", "--out", "mine.yaml"]) == 0
    )
    assert Path("sft.yaml").read_text() == text and "config: mine.yaml" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["shapes/sft", "configs/shapes/sft.yaml"])
def test_fit_and_inspect_find_them_from_any_folder(name: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["fit", f"--config={name}", "--trainer.max_epochs", "9", "--print_config"])
    assert ended.value.code in (0, None)
    printed = capsys.readouterr().out
    assert "unigap.stages.SFTStage" in printed and "max_epochs: 9" in printed
    assert main(["inspect", name.removeprefix("configs/").removesuffix(".yaml")]) == 0
    assert "unigap.stages.SFTStage" in capsys.readouterr().out


def test_a_file_of_that_name_comes_first(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("shapes").mkdir()
    Path("shapes/sft").write_text("trainer: {max_epochs: 7}\n")
    flags = [word for name, value in TRAINER.items() if "max_epochs" not in name for word in (f"--{name}", str(value))]
    with pytest.raises(SystemExit):
        main(["fit", "--config", "shapes/sft", "--model", "unigap.stages.DPOStage", *flags, "--print_config"])
    printed = capsys.readouterr().out
    assert "max_epochs: 7" in printed and "DPOStage" in printed
