"""``python -m evidence theory`` in small: the page, what it rests on, and arms that are measured once."""

from __future__ import annotations

import functools
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import expect_error

from evidence import coupling, theory_plan, theory_summary
from evidence.__main__ import main
from evidence.markdown import shown
from evidence.results_file import ResultsFile
from evidence.statistics import over_seeds, rank_correlation
from evidence.theory_page import against
from unigap.metrics.intervals import Estimate
from unigap.models.janus import Janus
from unigap.worlds.shapes.lessons import alternatives

SMALL = {
    "per_cell": 1, "candidates": 4, "epochs": 1, "batch_size": 8, "watch_every": 2, "test_per_cell": 1,
    "test_candidates": 3, "step_probes": 3, "alternatives": 3, "train_rows": 4, "coupling_probes": 4,
    "shared_steps": 2, "shared_batch": 2, "shared_per_cell": 1,
}  # fmt: skip
FIGURES = {"theory-lemmas.png", "theory-coupling.png", "theory-corrections.png", "theory-bayes.png"}


def test_one_command_writes_the_page_and_measures_nothing_twice(
    janus_folder: Path, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(coupling, "PERMUTATIONS", 50)
    monkeypatch.setattr(theory_plan, "TheoryPlan", functools.partial(theory_plan.TheoryPlan, **SMALL))
    command = ["theory", "--checkpoint", str(janus_folder), "--seeds", "1"]
    assert main(command) == 0
    assert "evidence: docs/evidence/theory.md" in capsys.readouterr().out
    made = {path.name for path in (here / "docs/evidence").iterdir() if not path.name.startswith(".")}
    assert made == FIGURES | {"theory.md", "theory.parquet"}
    page = (here / "docs/evidence/theory.md").read_text()
    assert Janus(str(janus_folder)).weights_digest()[:12] in page
    assert page.count("\n## ") == 5 and all(f"]({name})" in page for name in FIGURES)

    file = ResultsFile(here / "docs/evidence/theory.parquet")
    found = file.results()
    for objective in ("sft", "dpo"):
        for reading in ("generation", "bayes", "head"):
            assert found["one-step-0"][objective][reading]["fits"][0]["r2"] > 0.99, (objective, reading)
    apart = found["coupling-0"]["two trunks"]["tests"]["own_cosine"]
    assert apart["value"] == apart["null_mean"] == 0 != found["coupling-0"]["base"]["tests"]["own_cosine"]["value"]

    assert found.keys() == {"improve-0", "one-step-0", "coupling-0", "corrections-0", "shared", "shared-0"}
    written = file.path.read_bytes()
    assert main(["forget", str(file.path), "coupling-0"]) == 0
    assert file.results() == {name: result for name, result in found.items() if name != "coupling-0"}
    pools, aside = here / "runs/evidence/theory/seed-0", here / "aside"
    pools.rename(aside)
    capsys.readouterr()
    expect_error(main(command), capsys, "coupling-0 is not measured yet and needs what improve-0 left", "--work")
    aside.rename(pools)
    assert main(command) == 0
    assert file.path.read_bytes() == written, "an arm is a function of the plan and the weights"
    assert (here / "docs/evidence/theory.md").read_text() == page

    capsys.readouterr()
    expect_error(main([*command[:-1], "2"]), capsys, "another experiment (seeds differ)", "--out")


def drawings(kernel: torch.Tensor, fall: torch.Tensor, corrected: torch.Tensor) -> dict[str, Any]:
    """An arm in which every drawing is a false positive of a prompt of its own."""
    n = len(kernel)
    noise = torch.rand(n, generator=torch.Generator().manual_seed(1)).tolist()
    arm = {"prompt": list(range(n)), "before": [10.0] * n, "right": [False] * n, "matched_yes": (~corrected).tolist()}
    return (
        arm
        | {"after": (10 - fall).tolist(), "kernel": kernel.tolist()}
        | dict.fromkeys(("kernel_adam", "p_yes", "pixels", "hidden"), noise)
    )


def test_a_kernel_that_knows_is_told_from_scores_that_do_not() -> None:
    rank = torch.arange(60.0)
    results = {f"corrections-{seed}": drawings((seed + 1) * rank, rank / 10, rank > 45) for seed in (0, 1)}
    wrong = theory_summary.false_positives(results, (0, 1), ["color"] * 60)
    assert (len(wrong.corrected_F), int(wrong.corrected_F.sum()), int(wrong.unmatched_F.sum())) == (120, 28, 0)
    told = theory_summary.correction_table(wrong)
    assert told["kernel"]["auroc"].value == 1 and told["kernel"]["rank"].value == 1
    for name in ("p_yes", "pixels"):
        assert against(told[name]["auroc"], 0.5) == against(told[name]["rank"], 0) == "not significantly different from"
    moved = theory_summary.judge_movement(results, (0, 1))
    assert moved["false accept"]["realised"].value == pytest.approx(-2.95) and moved["true accept"]["realised"].n == 0


def test_a_score_that_knows_only_the_category_is_found_out() -> None:
    """Simpson's paradox: half of one category is corrected, none of the other, whatever the drawing."""
    category_of = ["shape"] * 30 + ["spatial"] * 30
    shape = torch.tensor([name == "shape" for name in category_of])
    corrected = shape & (torch.arange(60) % 2 == 0)
    noise = torch.rand(60, generator=torch.Generator().manual_seed(3))
    results = {f"corrections-{seed}": drawings(shape + 0.1 * noise, shape + noise, corrected) for seed in (0, 1)}
    wrong = theory_summary.false_positives(results, (0, 1), category_of)
    assert theory_summary.corrections_by_category(wrong, category_of) == {"shape": (60, 30), "spatial": (60, 0)}
    told = theory_summary.correction_table(wrong)
    assert told["kernel"]["auroc"].low > 0.7 and told["category"]["auroc"].low > 0.7
    assert told["kernel"]["auroc_within"].side(0.5) == 0 and told["category"]["auroc_within"].value == 0.5


def test_rank_correlation_counts_prompts_not_drawings() -> None:
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(40, generator=draw)
    y = x + torch.randn(40, generator=draw)
    alone = rank_correlation(x, y, torch.arange(40))
    five = rank_correlation(x.repeat(5), y.repeat(5), torch.arange(40).repeat(5))
    assert 0.3 < alone.value < 1 and alone.low < alone.value < alone.high
    assert five.high - five.low == pytest.approx(alone.high - alone.low, rel=0.05)
    assert rank_correlation(x, x.exp(), torch.arange(40)).value == 1
    assert rank_correlation(x, torch.ones(40), torch.arange(40)).n == 0


def test_intervals_over_seeds_and_how_they_are_told() -> None:
    told = over_seeds([0.9, 1.0, 1.1])
    assert told.value == pytest.approx(1) and told.high - told.value == pytest.approx(4.303 * 0.1 / math.sqrt(3))
    assert math.isnan(over_seeds([1.0]).low) and over_seeds([1.0, math.nan]).n == 0
    assert (
        shown(told, 2) == "1.00 [0.75, 1.25]"
        and shown(over_seeds([])) == "-"
        and shown(over_seeds([0.00012])) == "1.2e-04"
    )
    names = {0.5: "above", 1.0: "not significantly different from", 2.0: "below"}
    assert {chance: against(told, chance) for chance in names} == names
    assert against(Estimate(1.0, math.nan, math.nan, 1), 0.0) == "unknown against"


def test_alternatives_are_different_prompts_the_true_one_first() -> None:
    for text in ("a red circle", "two green triangles", "a red circle left of a blue square"):
        found = alternatives(text, 6, seed=0)
        assert found[0] == text and len(set(found)) == 6 and found == alternatives(text, 6, seed=0)
