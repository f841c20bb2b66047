"""``python -m evidence architectures`` in small: three families and two copies apart, in one page."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import pytest
import torch

from evidence.__main__ import main
from evidence.architectures import plan as plan_module
from evidence.architectures.plan import ARMS, ArchitecturesPlan
from evidence.claims import recipes
from evidence.claims.arm import Arm
from evidence.fit import spec
from evidence.results_file import ResultsFile
from evidence.two_models import TwoModels
from unigap.models.families import load_model

TINY = functools.partial(ArchitecturesPlan, per_cell=1, test_per_cell=1, exam=10, probes=4)
FICKLE = spec("unigap.judges.RandomJudge", yes_rate=0.4, seed=0)
NAMES = ("two Januses", "Janus", "Show-o", "Emu3", "Emu3, question first")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_module, "ArchitecturesPlan", TINY)
    for name in ARMS:
        small = {
            recipes.JUDGE: FICKLE,
            "regrow.plan.candidates": 2,
            "trainer.max_epochs": 1,
            "model.init_args.lr": 1e-3,
        }
        monkeypatch.setitem(ARMS, name, Arm(ARMS[name].config, small))


def test_one_command_compares_three_families_and_two_copies(
    quick: None,
    janus_folder: Path,
    emu3_folder: Path,
    showo_folder: Path,
    here: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["architectures", "--seeds", "1", "--jobs", "1", "--janus", str(janus_folder)]
    words += ["--emu3", str(emu3_folder), "--emu3_question_first", str(emu3_folder), "--show_o", str(showo_folder)]
    assert main(words) == 0
    out = here / "docs/evidence"
    assert capsys.readouterr().out.splitlines() == [
        "evidence: docs/evidence/architectures.md",
        "evidence: docs/evidence/architectures.json",
    ]
    kept = ResultsFile(out / "architectures.parquet").results()
    assert len(kept) == len(NAMES) * (len(ARMS) + 2)
    apart, together = (kept[f"{name}-coupling-seed-0"]["tests"]["own_cosine"] for name in ("two-januses", "janus"))
    assert apart["value"] == 0 != together["value"]
    for arm in ("sft", "dpo"):
        base, after = kept["two-januses-base-seed-0"], kept[f"two-januses-{arm}-seed-0"]
        assert after["fixed"] == base["own"] and after["renders"] == base["renders"], "nothing reaches the judge"
        assert kept[f"janus-{arm}-seed-0"]["fixed"] != kept["janus-base-seed-0"]["own"]
    page = (out / "architectures.md").read_text()
    assert all(f"| {name} |" in page and f"| {name}: SFT |" in page for name in NAMES)
    assert "nan" not in page and (out / "architectures.png").stat().st_size > 5000
    rows = json.loads((out / "architectures.json").read_text())["rows"]
    (zero,) = [r["value"] for r in rows if r["arm"] == "two Januses" and r["metric"] == "value"]
    assert zero == 0
    written = (out / "architectures.parquet").stat().st_mtime_ns
    assert main(words) == 0
    assert (out / "architectures.parquet").stat().st_mtime_ns == written, "runs are kept"


def test_two_models_draw_with_one_and_judge_with_the_other(janus_folder: Path) -> None:
    drawing, judging = load_model(str(janus_folder)), load_model(str(janus_folder))
    with torch.no_grad():
        for parameter in judging.trunk.parameters():
            parameter.mul_(1.1)
    both = TwoModels(drawing, judging)
    pixels, asked = torch.zeros(1, 3, 32, 32), [["is it red?"]]
    assert torch.equal(both.judge_logit(pixels, asked), judging.judge_logit(pixels, asked))
    assert not torch.equal(both.judge_logit(pixels, asked), drawing.judge_logit(pixels, asked))
    codes = torch.zeros(1, drawing.image_tokens, dtype=torch.int64)
    loss = -both.image_logps(both.encode_prompt(["a red circle"]), codes).mean()
    assert torch.equal(loss, -drawing.image_logps(drawing.encode_prompt(["a red circle"]), codes).mean())
    loss.backward()
    assert all(p.grad is None for p in judging.parameters())
    assert any(p.grad is not None for p in drawing.trunk.parameters())
    assert set(map(id, both.trunk.parameters())) == {id(p) for p in both.parameters() if p.requires_grad}
