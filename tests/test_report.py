"""The report of a synthetic run: what it says, that it is whole and safe, and what it says of damaged input."""

from __future__ import annotations

import doctest
import json
import random
import re
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any
from xml.etree import ElementTree

import matplotlib
import pytest
from PIL import Image

from unigap.report.pages import report, report_charts
from unigap.report.pages.report import write_report
from unigap.report.plots import charts, inline_svg
from unigap.report.plots.charts import Line, Point, line_chart
from unigap.report.plots.row_charts import Bar, Change, Segment, bar_chart, change_chart
from unigap.report.run_folder import findings

HOSTILE = "<script>alert('a & b')</script>"
VOID = {"meta", "link", "img", "br"}
RATES = {
    "generation": (0.412, 0.563),
    "non_unification": (0.478, 0.342),
    "weak_generation": (0.951, 0.934),
    "understanding_renders": (0.962, 0.964),
    "judge_tnr": (0.874, 0.781),
    "judge_tpr": (0.941, 0.948),
    "judge_precision": (0.781, 0.802),
    "judge_auroc": (0.957, 0.951),
    "yes_rate": (0.522, 0.658),
}
Edit = Callable[[dict[str, Any]], None]


def reading(value: float | None, half: float = 0.03, n: int = 960) -> dict[str, Any]:
    """A reading with a symmetric interval, clipped to [-1, 1]; null with n = 0 if the value is None."""
    if value is None:
        return {"value": None, "low": None, "high": None, "n": 0}
    return {"value": value, "low": max(value - half, -1.0), "high": min(value + half, 1.0), "n": n}


def part(before: float, after: float) -> dict[str, Any]:
    """The gap of one category: generation goes from ``before`` to ``after``, non-unification the other way."""
    return {
        "before": {"generation": reading(before, 0.07, 192), "non_unification": reading(0.9 - before, 0.06, 192)},
        "after": {"generation": reading(after, 0.07, 192), "non_unification": reading(0.88 - after, 0.06, 192)},
    }


def summary() -> dict[str, Any]:
    """A run that went as runs go."""
    after = {name: reading(after) for name, (_, after) in RATES.items()}
    after["win_rate"] = reading(0.62, 0.11, 74)
    after["matched_win_rate"] = reading(0.51, 0.12, 66)
    after["delta_auroc"] = reading(-0.006, 0.011, 1920)
    categories = {"color": (0.52, 0.71), "shape": (0.55, 0.73), "size": (0.62, 0.75), "count": (0.11, 0.17)}
    categories["spatial"] = (0.24, 0.31)
    difficulties = {"easy": (0.69, 0.81), "medium": (0.51, 0.64), "hard": (0.28, 0.43)}
    rounds = [(0, 800, 6400, 3328, 45, 2432, 3012), (1, 45, 360, 61, 23, 29, 3069), (2, 23, 184, 22, 17, 9, 3089)]
    keys = ("round", "prompts", "candidates", "accepted", "discarded", "truly_right", "pool_rows")
    return {
        "seed": 7,
        "model": "unigap/worlds/shapes/checkpoints/janus",
        "n_eval_prompts": 240,
        "before": {name: reading(before) for name, (before, _) in RATES.items()},
        "after": after,
        "delta": {"generation": reading(0.151, 0.034), "non_unification": reading(-0.136, 0.031)},
        "by_category": {name: part(*ends) for name, ends in categories.items()},
        "by_difficulty": {name: part(*ends) for name, ends in difficulties.items()},
        "redrawn": {"wrong_to_right": reading(0.25, 0.05, 396), "right_to_wrong": reading(0.05, 0.02, 564)},
        "rejudged": {
            "false_positives_rejected": reading(0.25, 0.1, 80),
            "true_positives_rejected": reading(0.05, 0.02, 400),
            "true_negatives_accepted": reading(0.125, 0.03, 480),
            "false_negatives_accepted": reading(None),
        },
        "rounds": [dict(zip(keys, values, strict=True)) for values in rounds],
        "wall_seconds": {"measure before": 21.4, "sample and judge": 44.9, "train": 98.2, "measure after": 22.0},
        "command": "unigap demo --seed 7 --out runs/demo",
        "versions": {"unigap": "0.1.0", "torch": "2.13.0", "transformers": "5.3.0", "lightning": "2.6.6"},
        "recipe": {"stage": "sft", "learning_rate": 3e-4, "candidates": 8, "cfg_weight": 1.0, "replay": True},
    }


def curves() -> list[dict[str, Any]]:
    """Four epochs, the first of them before training."""
    rows = []
    for epoch in range(4):
        share = (0.0, 0.6, 0.85, 1.0)[epoch]
        generation, non_unification = 0.412 + 0.151 * share, 0.478 - 0.136 * share
        row = {"epoch": epoch, "train_loss": 1.91 - 0.2 * epoch if epoch else None, "pool_rows": 3000 + epoch}
        row |= {"generation": generation, "generation_low": generation - 0.03, "generation_high": generation + 0.03}
        row |= {"non_unification": non_unification, "judge_tnr": 0.874 - 0.093 * share}
        rows.append(row | {"judge_precision": 0.781 + 0.02 * share, "understanding_renders": 0.963})
    return rows


def draw(path: Path, size: int) -> None:
    """A small PNG of noise with a coloured block."""
    chance = random.Random(path.name)
    image = Image.new("RGB", (size, size), (238, 236, 230))
    colour = tuple(chance.randrange(40, 220) for _ in range(3))
    left, top = (chance.randrange(size // 2) for _ in range(2))
    image.paste(colour, (left, top, left + size // 3, top + size // 3))
    for _ in range(size):
        image.putpixel((chance.randrange(size), chance.randrange(size)), colour)
    image.save(path)


def gallery(folder: Path) -> list[dict[str, Any]]:
    """Four exhibits: corrected, right all along, false positive in the end, rejected in both."""
    verdicts = [((0.91, False), (0.97, True)), ((0.88, True), (0.93, True))]
    verdicts += [((0.12, False), (0.81, False)), ((0.04, False), (0.31, True))]
    prompts = ["a small red circle left of a large blue square", "two green triangles", "a yellow square"]
    rows = []
    (folder / "gallery").mkdir()
    for index, (prompt, ends) in enumerate(zip([*prompts, HOSTILE], verdicts, strict=True)):
        row = {"prompt": prompt, "category": "spatial", "difficulty": "hard", "seed": 1000 + index}
        for when, (p_yes, external) in zip(("before", "after"), ends, strict=True):
            name = f"gallery/{index:02d}-{when}.png"
            draw(folder / name, 32 if index else 256)
            row[when] = {"image": name, "p_yes": p_yes, "external": external}
        rows.append(row)
    return rows


def rejudged(folder: Path) -> list[dict[str, Any]]:
    """Four old drawings whose verdict turned round: two false positives corrected, a positive and a negative lost."""
    (folder / "rejudged").mkdir()
    rows = []
    for index, (p_before, p_after, external) in enumerate(
        [(0.93, 0.08, False), (0.61, 0.44, False), (0.55, 0.31, True), (0.12, 0.83, False)]
    ):
        name = f"rejudged/{index:02d}.png"
        draw(folder / name, 32)
        about = {"prompt": f"{index + 2} red circles", "category": "count", "difficulty": "easy", "seed": index}
        rows.append({**about, "image": name, "p_before": p_before, "p_after": p_after, "external": external})
    return rows


def dynamics(folder: Path) -> list[dict[str, Any]]:
    """What the callback leaves of three steps and two kernels, with pictures."""
    (folder / "dynamics").mkdir()
    for name in ("prediction-000020", "prediction-000040", "coupling-000040"):
        draw(folder / "dynamics" / f"{name}.png", 300)
    rows: list[dict[str, Any]] = [{"kind": "probes", "step": 0, "ids": ["a@0.0"], "groups": ["true accept"]}]
    for step in (20, 40, 60):
        figures = {"fit/generation/r2": 0.99, "fit/understanding/r2": 1 - step / 1000}
        rows.append({"kind": "step", "step": step, "figures": figures, "generation": {"predicted": [0.1]}})
    for step in (0, 40):
        figures = {"own_cosine/value": 0.02, "own_cosine/null": 0.001, "co_improve": step / 100, "co_degrade": 0.25}
        rows.append({"kind": "kernel", "step": step, "figures": figures, "generation": [0.1]})
    return rows


def make_run(folder: Path) -> Path:
    """A whole run folder."""
    folder.mkdir(parents=True)
    files = {"summary": summary(), "curves": curves(), "gallery": gallery(folder), "rejudged": rejudged(folder)}
    for name, content in {**files, "dynamics/dynamics": dynamics(folder)}.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path / "run")


def edit(run: Path, change: Edit) -> Path:
    path = run / "summary.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    return run


class Page(HTMLParser):
    """Collects what a reader meets, and fails on tags that are not closed in order."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        assert not self.open
        words = " ".join(" ".join(self.words).split())
        self.text = words.replace("\N{MINUS SIGN}", "-").replace("\N{EN DASH}", "-")

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    def attributes(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def ids(self) -> list[str]:
        return [name for _, attributes in self.tags if (name := attributes.get("id"))]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Page:
    """The report of an unchanged run."""
    return Page(write_report(make_run(tmp_path_factory.mktemp("report") / "run")))


def test_the_headline_gives_both_paired_changes_with_their_intervals(page: Page) -> None:
    assert "Generation accuracy rose by 15.1 points (95 % interval 11.7 to 18.5)" in page.text
    assert "Non-unification fell by 13.6 points (95 % interval 10.5 to 16.7)" in page.text
    assert "Generation accuracy: no significant change" not in page.text


def test_an_interval_that_contains_zero_is_called_that(run: Path) -> None:
    edit(run, lambda content: content["delta"].update(generation=reading(0.011)))
    text = Page(write_report(run)).text
    claim = "Generation accuracy: no significant change (+1.1 points; the 95 % interval, -1.9 to +4.1, contains zero)"
    assert claim in text
    assert "+1.1 points -1.9 to +4.1 n = 960 no significant change" in text
    assert "Generation accuracy rose" not in text


@pytest.mark.parametrize(
    ("metric", "after", "warned"),
    [("judge_tnr", 0.9, False), ("judge_tnr", 0.86, False), ("judge_tnr", 0.7, True), ("judge_precision", 0.7, True)],
)
def test_a_gap_closed_by_a_blinder_judge_is_flagged(run: Path, metric: str, after: float, warned: bool) -> None:
    def change(content: dict[str, Any]) -> None:
        content["after"]["judge_tnr"] = reading(0.9)
        content["after"][metric] = reading(after)

    assert ("into its blind spots" in Page(write_report(edit(run, change))).text) is warned


def test_a_gap_that_did_not_close_raises_no_blind_spot_flag(run: Path) -> None:
    edit(run, lambda content: content["delta"].update(non_unification=reading(0.05)))
    text = Page(write_report(run)).text
    assert "Non-unification rose by 5.0 points" in text
    assert "blind spots" not in text


def test_forgetting_is_flagged(run: Path) -> None:
    edit(run, lambda content: content["after"].update(understanding_renders=reading(0.85)))
    assert "the model forgets" in Page(write_report(run)).text


def test_the_table_holds_every_metric_with_interval_and_n(page: Page) -> None:
    text = page.text
    for before, after in (RATES[name] for name in RATES if name != "judge_auroc"):
        for value in (before, after):
            low, high = 100 * (value - 0.03), 100 * min(value + 0.03, 1.0)
            assert f"{100 * value:.1f} % {low:.1f} to {high:.1f} n = 960" in text
    assert "0.957 0.927 to 0.987 n = 960" in text
    assert "+15.1 points +11.7 to +18.5 n = 960 better" in text


def test_the_win_rate_stands_with_its_n_its_matched_form_and_the_change_of_auroc(page: Page) -> None:
    text = page.text
    group = text[text.index("The judge after training compared with before") :]
    assert group.index("62.0 % 51.0 to 73.0 n = 74") < group.index("51.0 % 39.0 to 63.0 n = 66")
    assert group.index("n = 66") < group.index("-0.006 -0.017 to +0.005 n = 1,920 no significant change")


def test_a_win_rate_alone_is_refused(run: Path) -> None:
    edit(run, lambda content: content["after"].pop("delta_auroc"))
    with pytest.raises(ValueError, match=r"win_rate needs after.matched_win_rate and after.delta_auroc"):
        write_report(run)


def test_nothing_to_measure_is_shown_as_nothing(run: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        for name in ("weak_generation", "matched_win_rate", "win_rate"):
            content["after"][name] = reading(None)
        content["delta"]["non_unification"] = reading(None)
        content["by_category"]["count"]["after"]["generation"] = reading(None)
        for one in content["rounds"]:
            one["truly_right"] = None

    page = Page(write_report(edit(run, change)))
    assert "Non-unification was not measured" in page.text
    assert "- n = 0 nothing to measure" in page.text
    assert "not asked" in page.text
    assert "None" not in page.text
    assert "accepted, wrong" not in page.text


def test_what_nobody_judged_is_neither_accepted_nor_rejected(run: Path) -> None:
    plain = Page(write_report(run)).text
    page = Page(write_report(edit(run, lambda content: content["rounds"][1].update(judged=122)))).text
    assert "122 judged" in page and "not judged" in page and "not judged" not in plain
    assert "61 50 %" in page and "61 17 %" in plain


def test_the_gallery_shows_both_verdicts_in_words(run: Path) -> None:
    page = Page(write_report(run))
    glance, images = page.attributes("img")[:8], page.attributes("img")[8:16]
    assert sorted(image["src"] or "" for image in glance) == sorted(image["src"] or "" for image in images)
    assert glance[0]["src"] == images[0]["src"], "a prompt that turned right comes first"
    assert all((image["src"] or "").startswith("data:image/png;base64,") for image in images)
    assert images[0]["alt"] == (
        "Generated before training for “a small red circle left of a large blue square”. "
        "Judge: yes (0.91). External verdict: wrong."
    )
    assert [image.get("class") for image in images] == [None] * 2 + ["pixelated"] * 6
    assert page.text.count("judge: yes (0.91) external: ✕ wrong false positive") == 1
    assert page.text.count("judge: yes (0.97) external: ✓ right false positive corrected") == 1
    assert (
        "99 of 396 wrong images are right now, and 28 of 564 right images are wrong now. "
        "4 prompts are shown, each outcome about as often as it occurs: 2 turned from wrong to right and 0 from right "
        "to wrong; false positives: 1 before, 1 after."
    ) in page.text
    edit(run, lambda content: content.pop("redrawn"))
    assert "images are right now" not in Page(write_report(run)).text, "an earlier run did not count them"


def test_old_drawings_judged_again_are_counted_both_ways_and_shown(run: Path) -> None:
    page = Page(write_report(run))
    section = page.text[page.text.index("Images from before training, judged again") :]
    assert "False positives corrected 20 of 80 25.0 % (15.0 to 35.0) Wrong, yet accepted before" in section
    assert "True positives lost 20 of 400 5.0 % (3.0 to 7.0)" in section
    assert "False negatives corrected none no image was rejected like this" in section
    assert "True negatives lost 60 of 480 12.5 % (9.5 to 15.5)" in section
    assert section.index("2 red circles 0.93 → 0.08") < section.index("True positives lost") < section.index("0.31")
    alt = "Generated before training for “2 red circles”. Judge: yes (0.93), after training no (0.08). "
    assert page.attributes("img")[16]["alt"] == alt + "External verdict: wrong."


def test_dynamics_that_lie_in_the_run_folder_are_shown(run: Path) -> None:
    page = Page(write_report(run))
    assert "generation from 0.99 to 0.99; understanding from 0.98 to 0.94" in page.text
    assert "own pairs from 0.02 to 0.02; by chance from 0.001 to 0.001" in page.text
    assert "improved from 0 % to 40 %; degraded from 25 % to 25 %" in page.text
    assert "Prediction against measurement, step 40" in page.text, "the last picture of each kind"
    plots = [image["alt"] for image in page.attributes("img")[20:]]
    assert len(plots) == 2 and all((alt or "").startswith("Plot at step 40: ") for alt in plots)
    for path in (run / "dynamics").iterdir():
        path.unlink()
    assert "dynamics" not in Page(write_report(run)).ids


def test_the_charts_are_labelled_and_their_names_unique(page: Page) -> None:
    charts = page.attributes("svg")
    assert len(charts) == 3 + 4 + 2 + 3 + 1
    assert len(page.ids) == len(set(page.ids))
    for chart in charts:
        assert chart["role"] == "img"
        assert set((chart["aria-labelledby"] or "").split()) <= set(page.ids)
    assert "color from 52 % (45 to 59) to 71 % (64 to 78)" in page.text
    assert "Round 1: accepted, right 8.06, accepted, wrong 8.89, rejected 83.1" in page.text
    for chart in re.findall(r"<svg.*?</svg>", page.source, re.DOTALL):
        places = [float(n) for n in re.findall(r' (?:x|x1|x2|cx|y|y1|y2|cy|width)="(-?[\d.]+)"', chart)]
        assert all(-1 <= place <= 460 for place in places)
        ElementTree.fromstring(chart)


def test_every_colour_a_chart_uses_is_defined_for_light_and_dark(page: Page) -> None:
    source = page.source
    light, dark = source.split("@media (prefers-color-scheme: dark)")
    dark = dark[: dark.index("* {")]
    for name in set(re.findall(r"var\((--[a-z-]+)\)", source)) - {"--colour"}:
        assert f"{name}:" in light
        assert f"{name}:" in dark


def test_the_page_needs_nothing_else(page: Page) -> None:
    assert not page.attributes("script")
    for _, attributes in page.tags:
        for name in ("src", "href", "srcset"):
            assert (attributes.get(name) or "data:").startswith(("data:", "#"))
    assert "url(" not in page.source.replace("url(#", "")
    assert "http" not in page.source.replace("http-equiv", "")
    assert "prefers-color-scheme: dark" in page.source
    assert ("viewport", "width=device-width, initial-scale=1") in [
        (meta.get("name"), meta.get("content")) for meta in page.attributes("meta")
    ]


def test_the_recipe_the_versions_and_the_command_are_there(page: Page) -> None:
    text = page.text
    for words in ("unigap demo --seed 7 --out runs/demo", "torch 2.13.0", "learning_rate 0.0003", "1 min 38 s"):
        assert words in text


def test_a_long_command_has_an_option_a_line_and_a_long_recipe_is_folded_away(run: Path) -> None:
    command = "unigap fit --config configs/shapes/c_sft.yaml --trainer.max_epochs 3 --regrow.plan.candidates 4"
    recipe = {f"setting.{number}": "" for number in range(20)}
    edit(run, lambda content: content.update(command=command, recipe=recipe))
    page = Page(write_report(run))
    assert command.replace(" --", " \\\n  --") in page.source
    assert "All 20 settings of the recipe" in page.text and 'setting.19 ""' in page.text
    assert len(page.attributes("details")) == 1
    edit(run, lambda content: content.update(command=f"{command} --out 'a --b'"))
    assert "--out &#39;a --b&#39;" in Page(write_report(run)).source


def test_all_text_is_escaped(run: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        content["model"] = content["command"] = HOSTILE
        content["recipe"] = {HOSTILE: HOSTILE}
        content["versions"] = {HOSTILE: HOSTILE}
        content["wall_seconds"] = {HOSTILE: 1.0}
        content["by_category"][HOSTILE] = content["by_category"]["color"]

    page = Page(write_report(edit(run, change)))
    assert not page.attributes("script")
    assert "<script" not in page.source
    assert page.text.count(HOSTILE) >= 10


def test_absent_parts_are_left_out(run: Path) -> None:
    for name in ("curves", "gallery", "rejudged", "dynamics/dynamics"):
        (run / f"{name}.json").unlink()
    for picture in (run / "dynamics").glob("*.png"):
        picture.unlink()

    def change(content: dict[str, Any]) -> None:
        for name in ("by_category", "by_difficulty", "rejudged", "recipe"):
            del content[name]
        content["rounds"] = []
        content["wall_seconds"] = {}
        del content["after"]["win_rate"]

    page = Page(write_report(edit(run, change)))
    assert page.ids == ["again"]
    assert not page.attributes("svg")
    assert "win rate" not in page.text.lower()


def test_a_single_epoch_and_empty_rounds_can_be_drawn(run: Path) -> None:
    (run / "curves.json").write_text(json.dumps([{"epoch": 1, "generation": 0.4, "train_loss": None}]))
    empty = dict.fromkeys(("round", "prompts", "candidates", "accepted", "discarded", "truly_right", "pool_rows"), 0)
    edit(run, lambda content: content.update(rounds=[empty]))
    page = Page(write_report(run))
    assert "generation from 40 % to 40 %" in page.text
    assert "Training loss" not in page.text
    assert "Epoch 0" not in page.text


def test_labels_of_curves_that_end_together_do_not_overlap() -> None:
    lines = [Line(f"line {i}", "third", [(0, Point(40.0)), (1, Point(50.0 + i / 10))]) for i in range(4)]
    labels = re.findall(r'y="([\d.]+)"[^>]*>line \d<', line_chart("chart", "title", lines, "epoch", "%"))
    heights = sorted(float(y) for y in labels)
    assert len(heights) == 4
    assert all(later - earlier >= 28 for earlier, later in pairwise(heights))


@pytest.mark.parametrize("label", ["$x^2$ and $y", "日本語", "one\ntwo\x1b[0m", HOSTILE])
def test_labels_are_drawn_as_they_are(label: str) -> None:
    change = Change(label, label, Point(10, 5, 15), Point(20, 15, 25))
    chart = change_chart("chart", label, [change], "generation", "share, %", " %")
    texts = ["".join(element.itertext()) for element in ElementTree.fromstring(chart).iter("text")]
    assert texts.count(re.sub(r"[\n\x1b]", "\N{REPLACEMENT CHARACTER}", label)) == 2
    assert "<script" not in chart


def test_a_chart_is_the_same_each_time_whatever_matplotlibrc_says() -> None:
    bars = [Bar("a", "3", [Segment("one", 1, "generation"), Segment("two", 2, "third", hatched=True)])]
    first = bar_chart("chart", "title", bars, "share, %")
    with matplotlib.rc_context({"svg.fonttype": "path", "lines.linewidth": 9, "xtick.labelsize": 30}):
        assert bar_chart("chart", "title", bars, "share, %") == first
    assert not re.search("#[0-9a-f]{6}", re.sub(r"url\(#[^)]*\)", "", first)), "colours are the page's"


def test_every_point_row_and_segment_has_a_tooltip(page: Page) -> None:
    charts = [ElementTree.fromstring(chart) for chart in re.findall(r"<svg.*?</svg>", page.source, re.DOTALL)]
    tips = {
        chart[0].text: {(one.text or "").replace("\N{NO-BREAK SPACE}", " ") for one in chart.iter("title")}
        for chart in charts
    }
    assert "generation, epoch 3: 56.3 % (53.3 to 59.3)" in tips["The gap by epoch"]
    assert len(tips["The gap by epoch"]) == 1 + 8
    assert (
        "color: 52 % (45 to 59) before, 71 % (64 to 78) after; n = 192"
        in tips["Generation accuracy by category, before and after"]
    )
    assert "accepted, wrong: 8.89" in tips["Candidates by round and verdict"]


def test_a_diverged_loss_is_read_as_missing(run: Path) -> None:
    (run / "curves.json").write_text('[{"epoch": 0, "generation": 0.4}, {"epoch": 1, "train_loss": NaN}]')
    assert "nan" not in Page(write_report(run)).text.lower().split()


@pytest.mark.parametrize("out", [None, "deep/below/page.html"])
def test_the_page_goes_where_it_is_asked_and_leaves_nothing_else(run: Path, tmp_path: Path, out: str | None) -> None:
    before = {path.name for path in run.iterdir()}
    path = write_report(run, "" if out is None else tmp_path / out)
    assert path == (run / "report.html" if out is None else tmp_path / out)
    assert path.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert {path.name for path in run.iterdir()} - before == ({"report.html"} if out is None else set())
    assert [p.name for p in path.parent.iterdir() if p.name.endswith(".tmp")] == []


def test_a_failed_report_leaves_the_old_one(run: Path) -> None:
    path = write_report(run)
    old = path.read_bytes()
    (run / "gallery" / "02-after.png").unlink()
    with pytest.raises(ValueError, match="cannot read the image"):
        write_report(run)
    assert path.read_bytes() == old


def damage(name: str, text: str) -> Callable[[Path], object]:
    return lambda run: (run / name).write_text(text)


def with_summary(change: Edit) -> Callable[[Path], object]:
    return lambda run: edit(run, change)


def cut_image(run: Path) -> None:
    path = run / "gallery" / "00-before.png"
    path.write_bytes(path.read_bytes()[:-20])


def stray_image(run: Path) -> None:
    path = run / "gallery.json"
    path.write_text(path.read_text().replace("gallery/00-before.png", "../secret.png"))


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda run: (run / "summary.json").unlink(), "summary.json is missing; give the folder"),
        (damage("summary.json", '{"seed": 1'), "summary.json is damaged, not JSON"),
        (damage("summary.json", "\udcff".encode("utf-8", "surrogateescape").decode("latin-1")), "damaged, not JSON"),
        (damage("summary.json", "[]"), "summary.json must be an object"),
        (damage("curves.json", "{}"), "curves.json must be a list"),
        (damage("curves.json", '[{"generation": 0.4}]'), r"curves.json\[0\] lacks 'epoch'"),
        (damage("gallery.json", "[1]"), r"gallery.json\[0\] must be an object, got 1"),
        (damage("rejudged.json", '[{"prompt": 1}]'), r"rejudged.json\[0\].prompt must be text, got 1"),
        (damage("dynamics/dynamics.json", '[{"kind": "step"}]'), r"dynamics.json\[0\] lacks 'step'"),
        (with_summary(lambda content: content.pop("after")), "summary.json lacks 'after'"),
        (with_summary(lambda content: content["delta"].pop("generation")), "delta lacks 'generation'"),
        (with_summary(lambda content: content["before"]["judge_tnr"].pop("n")), "before.judge_tnr lacks 'n'"),
        (with_summary(lambda content: content["before"].update(generation=reading(41.2))), "must be shares"),
        (with_summary(lambda content: content["before"]["generation"].update(low=0.9)), "interval is upside down"),
        (with_summary(lambda content: content.update(seed=True)), "summary.json.seed must be a whole number, got true"),
        (with_summary(lambda content: content["rounds"][1].update(accepted=361)), r"rounds\[1\]: 0 <= truly_right"),
        (with_summary(lambda content: content["rounds"][1].update(judged=60)), "accepted <= judged <= candidates"),
        (cut_image, "00-before.png is not a whole PNG image"),
        (stray_image, "lies outside"),
    ],
)
def test_damage_is_one_clear_line(run: Path, harm: Callable[[Path], object], message: str) -> None:
    harm(run)
    with pytest.raises(ValueError, match=message) as caught:
        write_report(run)
    assert "\n" not in str(caught.value)
    assert not (run / "report.html").exists()


def test_a_missing_folder_and_a_folder_as_output_are_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no run folder at"):
        write_report(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="is a folder; give the name of the HTML file"):
        write_report(run, tmp_path)


@pytest.mark.parametrize("module", [charts, inline_svg, findings, report, report_charts])
def test_the_examples_in_the_docstrings_hold(module: ModuleType) -> None:
    result = doctest.testmod(module)
    assert result.attempted and not result.failed


def test_the_report_needs_neither_torch_nor_lightning() -> None:
    heavy = "{'torch', 'lightning', 'transformers'}"
    code = f"import sys, unigap.report.pages.report; sys.exit(bool({heavy} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", code], check=True)
