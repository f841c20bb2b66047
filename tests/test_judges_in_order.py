"""Who selects decides what is gained: the oracle, then the model itself, then chance, then a judge that is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from unigap.cli.commands import demo
from unigap.cli.commands.demo import DemoPlan, run_demo
from unigap.data import PoolData
from unigap.judges import InvertedJudge, Judge, OracleJudge, RandomJudge, SelfJudge
from unigap.objectives import SFT

PLAN = DemoPlan(
    per_cell=12, candidates=4, epochs=3, lr=1.5e-4, eval_per_cell=8, eval_candidates=3, exam=0, batch_size=16
)


def test_better_judges_make_better_drawings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # gains are measured on test prompts; nobody looks at the validation after each epoch, whose samples cost a quarter
    monkeypatch.setattr(demo, "PoolData", lambda **options: PoolData(**{**options, "eval_per_cell": 1}))
    judges: dict[str, Judge] = {
        "oracle": OracleJudge(),
        "self": SelfJudge(),
        "random": RandomJudge(),
        "inverted": InvertedJudge(SelfJudge()),
    }
    gained = {}
    for name, judge in judges.items():
        (tmp_path / name).mkdir()
        summary = run_demo(PLAN, tmp_path / name, "csv", judge, SFT(keep=4))
        gained[name] = summary["delta"]["generation"]["value"]
    assert gained["oracle"] >= gained["self"] > gained["random"] > gained["inverted"], gained
    assert gained["self"] > 0.04, gained
    assert gained["inverted"] < 0, gained
