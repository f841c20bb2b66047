"""``unigap compare``: the figures, the page, what differs, and what is refused."""

from __future__ import annotations

import doctest
import json
import math
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from documented import documented
from small_runs import FICKLE, expect_error, improve

import unigap.pages.comparison
from unigap.__main__ import main
from unigap.pages.comparison import difference
from unigap.run_folder.contents import Reading

HOSTILE = "<script>alert('a & b')</script>"


def copy(run: Path, name: str, change: Callable[[dict[str, Any]], object] = lambda summary: None) -> str:
    """A run folder in the working directory with another summary."""
    shutil.copytree(run, name, ignore=shutil.ignore_patterns("pool", "csv"))
    path = Path(name) / "summary.json"
    summary = json.loads(path.read_text())
    change(summary)
    path.write_text(json.dumps(summary))
    return name


def better(summary: dict[str, Any]) -> None:
    """More generation accuracy, and another learning rate."""
    summary["after"]["generation"] = {"value": 0.8, "low": 0.77, "high": 0.82, "n": 400}
    summary["recipe"]["lr"] = 0.5


def worse(summary: dict[str, Any]) -> None:
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
    assert "<b>lr</b>" in differing and "<b>epochs</b>" not in differing
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
    copy(small_demo, "a", lambda summary: summary["recipe"].update(lr=2e-4))
    copy(small_demo, "b", lambda summary: summary["recipe"].update({f"option{i}": i for i in range(settings)}))
    assert main(["compare", "a", "b"]) == 0
    page = Path("compare.html").read_text(encoding="utf-8")
    both, _, some = page.partition("What was done differently")[2].partition("</section>")[0].partition("<details")
    assert "<b>lr</b>" in both and "option" not in both
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


def test_the_interval_of_a_difference_covers_the_truth() -> None:
    """Two binomial shares with Wilson intervals: MOVER is then Newcombe's interval, nominal 95 %."""
    chance = random.Random(0)
    truths, n, hits, rounds = (0.55, 0.7), 150, 0, 2000
    for _ in range(rounds):
        first, other = (wilson(sum(chance.random() < p for _ in range(n)), n) for p in truths)
        found = difference(first, other)
        assert found.low is not None and found.high is not None
        hits += found.low <= truths[1] - truths[0] <= found.high
    assert 0.93 < hits / rounds < 0.97


def wilson(hits: int, n: int) -> Reading:
    """A share with Wilson's 95 % interval."""
    z, p = 1.959964, hits / n
    middle, half = (p + z * z / (2 * n)), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return Reading(p, (middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n), n)


def test_a_reading_that_is_missing_makes_no_difference() -> None:
    nothing, something = Reading(None, None, None, 0), Reading(0.5, 0.4, 0.6, 10)
    assert difference(nothing, something) == Reading(None, None, None, 0)
    assert difference(Reading(0.25, None, None, 5), something) == Reading(0.25, None, None, 5)


def test_the_examples_in_the_docstrings_hold() -> None:
    result = doctest.testmod(unigap.pages.comparison)
    assert result.attempted and not result.failed
