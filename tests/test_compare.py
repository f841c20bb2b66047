"""``unigap compare``: the figures, the page, what differs, and what is refused."""

from __future__ import annotations

import dataclasses
import doctest
import json
import math
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from documented import documented
from small_runs import FICKLE, expect_error, improve

import unigap.report.pages.comparison
from unigap.__main__ import main
from unigap.estimate import Estimate
from unigap.files.seals import SEALS
from unigap.metrics.intervals import paired_difference
from unigap.report.pages.comparison import difference, read_contender, read_contenders, unpaired_difference
from unigap.report.run_folder.figures import FIGURES

HOSTILE = "<script>alert('a & b')</script>"


def copy(run: Path, name: str, change: Callable[[dict[str, Any]], object] = lambda summary: None) -> str:
    """A run folder in the working directory with another summary."""
    shutil.copytree(run, name, ignore=shutil.ignore_patterns("pool", "checkpoints", "logs", SEALS))
    path = Path(name) / "summary.json"
    summary = json.loads(path.read_text())
    change(summary)
    path.write_text(json.dumps(summary))
    return name


def better(summary: dict[str, Any]) -> None:
    """More generation accuracy, and another learning rate; the samples were not recorded."""
    del summary["samples"]
    summary["after"]["generation"] = {"value": 0.8, "low": 0.77, "high": 0.82, "n": 400}
    summary["recipe"]["model.lr"] = 0.5


def worse(summary: dict[str, Any]) -> None:
    del summary["samples"]
    summary["after"]["generation"] = {"value": 0.3, "low": 0.26, "high": 0.35, "n": 300}


def test_the_page_and_the_table_say_what_differs(
    small_demo: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy(small_demo, "a", worse)
    copy(small_demo, "b", better)
    assert main(["compare", "a", "b", "--out", "page/compare.html"]) == 0
    printed = capsys.readouterr().out
    # by hand: the square root of 0.03**2 + 0.05**2, and of 0.02**2 + 0.04**2
    assert "30.0 [26.0, 35.0]" in printed and "80.0 [77.0, 82.0]" in printed and "+50.0 [+44.2, +54.5]" in printed
    assert printed.splitlines()[-3:] == ["A  a", "B  b", "comparison: page/compare.html"]
    page = Path("page/compare.html").read_text(encoding="utf-8")
    assert "+50.0" in page and "+44.2 to +54.5" in page and ">better<" in page and "n = 300" in page
    differing = page.partition("What was done differently")[2].partition("</section>")[0]
    assert "<b>model.lr</b>" in differing and "<b>trainer.max_epochs</b>" not in differing
    assert "only some of them have" not in page
    assert page.count('class="chart"') == 5, "three figures at a glance, two curves"
    for outside in ("http:", "https:", "<script", "src="):
        assert outside not in page.replace("http-equiv", "")
    assert "prefers-color-scheme: dark" in page and "width=device-width" in page


def test_runs_of_fit_can_be_compared(janus_folder: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = documented("compare")[1:]
    for name, lr in zip(names, (1e-4, 2e-4), strict=True):
        assert improve(janus_folder, "sft", {**FICKLE, "run": name, "model.init_args.lr": lr}) == 0
    assert main(documented("compare")) == 0
    page = Path("compare.html").read_text(encoding="utf-8")
    differing = page.partition("What was done differently")[2].partition("</section>")[0]
    assert "<b>model.lr</b>" in differing and differing.count("<b>") == 1, "folders are no recipe"
    last = json.loads(Path(names[0], "curves.json").read_text())[-1]
    assert f"{100 * last['non_unification']:.1f} [" in capsys.readouterr().out


@pytest.mark.parametrize(("settings", "opened"), [(1, True), (20, False)])
def test_what_only_some_runs_have_stands_apart(small_demo: Path, here: Path, settings: int, opened: bool) -> None:
    copy(small_demo, "a", lambda summary: summary["recipe"].update({"model.lr": 2e-4}))
    copy(small_demo, "b", lambda summary: summary["recipe"].update({f"option{i}": i for i in range(settings)}))
    assert main(["compare", "a", "b"]) == 0
    page = Path("compare.html").read_text(encoding="utf-8")
    both, _, some = page.partition("What was done differently")[2].partition("</section>")[0].partition("<details")
    assert "<b>model.lr</b>" in both and "option" not in both
    assert some.count("<b>option") == settings and (" open>" in some) is opened
    assert f"{settings} setting{'' if settings == 1 else 's'} that only some of them have" in some


def test_text_of_a_run_is_escaped(small_demo: Path, here: Path) -> None:
    for name in ("a", "b"):
        copy(small_demo, name, lambda summary, name=name: summary.update(recipe={HOSTILE: HOSTILE + name}))
    assert main(["compare", "a", "b"]) == 0
    assert "<script" not in Path("compare.html").read_text(encoding="utf-8")


def test_a_failed_comparison_leaves_the_old_page(
    small_demo: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy(small_demo, "a")
    Path("compare.html").write_text("old")
    expect_error(main(["compare", "a", "nowhere"]), capsys, "no run folder at nowhere")
    assert Path("compare.html").read_text() == "old"


def test_runs_on_the_same_prompts_are_compared_in_pairs(
    small_demo: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def three_more_right(summary: dict[str, Any]) -> None:
        wrong = [i for i, right in enumerate(summary["samples"]["right"]) if not right]
        for i in wrong[:3]:
            summary["samples"]["right"][i] = True

    copy(small_demo, "a")
    copy(small_demo, "b", three_more_right)
    a, b = read_contenders(["a", "b"])
    assert a.samples and b.samples
    n = len(a.samples.right)
    prompt_S = torch.arange(n) // a.samples.candidates
    arms = [(torch.tensor(run.samples.right).double(), torch.ones(n), prompt_S) for run in (a, b) if run.samples]
    assert difference("generation", a, b) == paired_difference(*arms)
    assert difference("generation", a, b).value == pytest.approx(3 / n)
    for metric in FIGURES:
        if a.after[metric].measured:
            found = difference(metric, a, a)
            assert found.value == 0 and (not found.has_interval or found.low == found.high == 0), metric
    paired, apart = difference("generation", a, b), unpaired_difference(a.after["generation"], b.after["generation"])
    assert paired.has_interval and apart.has_interval
    assert paired.high - paired.low < apart.high - apart.low
    assert main(["compare", "a", "b"]) == 0
    assert "are paired" in Path("compare.html").read_text(encoding="utf-8")
    assert "note:" not in capsys.readouterr().out


def test_the_samples_give_the_figures_of_the_summary(small_demo: Path) -> None:
    """Against nothing right and nothing accepted, the paired difference is the figure itself."""
    run = read_contender("A", str(small_demo))
    assert run.samples is not None
    for metric in ("generation", "judge_precision", "non_unification", "understanding_renders", "yes_rate"):
        counted = run.after[metric]
        zero = dataclasses.replace(
            run.samples,
            own=[9.0] * len(run.samples.own),
            right=[False] * len(run.samples.own),
            fixed_own=[-9.0] * len(run.samples.own),
            exam_own=[9.0 - 18.0 * right for right in run.samples.exam_right],
        )
        found = difference(metric, dataclasses.replace(run, samples=zero), run)
        assert found.value == pytest.approx(counted.value, abs=1e-9), metric


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("split", "validation", "split test and validation"),
        ("prompts_sha256", "0" * 64, "texts of the prompts"),
        ("candidates", 9, "images a prompt"),
        ("judge", {"name": "self", "questions": ["Is it?"]}, "judge"),
        ("external", {"name": "human"}, "external judge"),
    ],
)
def test_figures_of_other_things_are_not_set_side_by_side(
    small_demo: Path, here: Path, capsys: pytest.CaptureFixture[str], key: str, value: object, said: str
) -> None:
    copy(small_demo, "a")
    texts = {"prompts_sha256": "1" * 64} if key == "split" else {}
    copy(small_demo, "b", lambda summary: summary["measured_on"].update({**texts, key: value}))
    expect_error(main(["compare", "a", "b"]), capsys, "a and b were not measured alike", said)
    assert not Path("compare.html").exists()


def test_test_prompts_are_not_set_beside_validation_prompts(
    small_demo: Path, janus_folder: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logs = {"trainer.callbacks": "[{class_path: CurveLog, init_args: {folder: runs/sft}}]"}
    assert improve(janus_folder, "sft", {**FICKLE, **logs}) == 0
    copy(small_demo, "a")
    capsys.readouterr()
    expect_error(main(["compare", "a", "runs/sft"]), capsys, "not measured alike", "after training", "validation")


def test_runs_with_other_drawing_seeds_are_compared_unpaired(
    small_demo: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy(small_demo, "a")
    copy(small_demo, "b", lambda summary: summary["measured_on"].update(seed=7))
    assert main(["compare", "a", "b"]) == 0
    assert "note: the runs drew with different seeds" in capsys.readouterr().out
    a, b = read_contenders(["a", "b"])
    assert difference("generation", a, b) == unpaired_difference(a.after["generation"], b.after["generation"])
    assert "MOVER" in Path("compare.html").read_text(encoding="utf-8")


def test_a_run_that_does_not_record_what_it_was_measured_on_is_named(
    small_demo: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy(small_demo, "a")
    copy(small_demo, "b", lambda summary: [summary.pop(name) for name in ("measured_on", "samples")])
    assert main(["compare", "a", "b"]) == 0
    assert "note: b does not record what it was measured on (prompts, split" in capsys.readouterr().out
    assert "b does not record" in Path("compare.html").read_text(encoding="utf-8")


def test_the_interval_of_a_difference_covers_the_truth() -> None:
    """Two binomial shares with Wilson intervals: MOVER is then Newcombe's interval, nominal 95 %."""
    chance = random.Random(0)
    truths, n, hits, rounds = (0.55, 0.7), 150, 0, 2000
    for _ in range(rounds):
        first, other = (wilson(sum(chance.random() < p for _ in range(n)), n) for p in truths)
        found = unpaired_difference(first, other)
        assert found.has_interval
        hits += found.low <= truths[1] - truths[0] <= found.high
    assert 0.93 < hits / rounds < 0.97


def wilson(hits: int, n: int) -> Estimate:
    """A share with Wilson's 95 % interval."""
    z, p = 1.959964, hits / n
    middle, half = (p + z * z / (2 * n)), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return Estimate(p, (middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n), n)


def test_an_estimate_that_is_missing_makes_no_difference() -> None:
    nothing, something = Estimate(math.nan, math.nan, math.nan, 0), Estimate(0.5, 0.4, 0.6, 10)
    assert unpaired_difference(nothing, something).to_dict() == nothing.to_dict()
    without_interval = unpaired_difference(Estimate(0.25, math.nan, math.nan, 5), something)
    assert without_interval.to_dict() == {"value": 0.25, "low": None, "high": None, "n": 5}


def test_the_examples_in_the_docstrings_hold() -> None:
    result = doctest.testmod(unigap.report.pages.comparison)
    assert result.attempted and not result.failed
