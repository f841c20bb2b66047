"""``python -m evidence claims`` in small: arms and controls, what is read from them, and runs that are made once."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml
from small_runs import CONFIGS, expect_error

from evidence.__main__ import main
from evidence.claims import command, listing, plan, setting, verdicts
from evidence.claims.arm import Arm
from evidence.claims.contrasts import contrasts
from evidence.claims.plan import CLAIMS, Claim, run_name, seeds_of
from evidence.claims.readings import Resampling, gather, readings
from evidence.claims.recipes import ARMS, JUDGE
from evidence.claims.run import run_arm
from evidence.claims.verdicts import STATEMENTS, Statement, verdicts_section
from evidence.coverage import simulate
from evidence.fit import command as fit_command
from evidence.fit import spec
from evidence.results_file import ResultsFile
from unigap.__main__ import main as unigap
from unigap.metrics.intervals import Estimate, bootstrap_ratio, paired_difference
from unigap.metrics.win_rate import win_rate
from unigap.report.run_folder.fit_folder import flat

TINY = functools.partial(setting.Setting, per_cell=1, skip=3, test_per_cell=1, test_candidates=2, exam=10, batch_size=4)
FICKLE = spec("unigap.judges.RandomJudge", yes_rate=0.4, seed=0)
SMALL = {JUDGE: FICKLE, "regrow.plan.candidates": 3, "trainer.max_epochs": 2}
ALL = {"model.init_args.schedule.redraw": "all"}
RECORDED = Path(__file__).parents[1] / "docs" / "evidence"


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three arms, one of which is a control that takes the steps of another."""
    arms = {
        "random": Arm("sft", SMALL),
        "random, redrawn": Arm("c_sft", {**SMALL, **ALL}),
        "random, steps": Arm("sft", SMALL, steps_of="random, redrawn"),
    }
    claims = {
        "redrawing": Claim(
            "Fresh drawings help",
            ("random", "random, redrawn"),
            2,
            (("random, redrawn", "random, steps"),),
            headline=True,
        ),
        "again": Claim("The same again", ("random, redrawn",), 2),
    }
    for module in (plan, command, listing):
        monkeypatch.setattr(module, "ARMS", arms)
    monkeypatch.setattr(command, "CLAIMS", claims)
    monkeypatch.setattr(setting, "Setting", TINY)


def test_one_command_runs_what_is_missing_and_writes_the_page(
    few: None, janus_folder: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["claims", "--checkpoint", str(janus_folder), "--jobs", "1"]
    assert main([*words, "--list"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "redrawing: Fresh drawings help (3 arms, 0 more from above)",
        "  random: 2 runs, 0 there",
        "  random, redrawn: 2 runs, 0 there",
        "  random, steps: 2 runs, 0 there",
        "again: The same again (0 arms, 1 more from above)",
        "the base, before any arm",
        "  standard: 2 runs, 0 there",
        "8 runs, 0 there; none to take the time of a run from yet",
    ]
    assert not any(here.iterdir()), "a list runs nothing"
    assert main(words) == 0
    assert capsys.readouterr().out.splitlines() == [
        "evidence: docs/evidence/claims.md",
        "evidence: docs/evidence/headline.md",
        "evidence: docs/evidence/evidence.json",
    ]
    file = ResultsFile(here / "docs/evidence/claims.parquet")
    kept = file.results()
    assert kept.keys() == {
        f"{arm}-seed-{seed}" for arm in ("base-standard", "random", "random-redrawn", "random-steps") for seed in (0, 1)
    }
    for seed in (0, 1):
        assert kept[f"random-steps-seed-{seed}"]["steps"] == kept[f"random-redrawn-seed-{seed}"]["steps"]
        assert len(kept[f"random-redrawn-seed-{seed}"]["rounds"]) == 2
    facts = json.loads((here / "docs/evidence/evidence.json").read_text())
    assert all(row.keys() == {"claim", "arm", "metric", "value", "low", "high", "n", "seeds"} for row in facts["rows"])
    contrasts = {row["metric"]: row for row in facts["rows"] if row["arm"] == "random, redrawn minus random, steps"}
    ours, control = (
        [kept[f"{arm}-seed-{seed}"]["right"] for seed in (0, 1)] for arm in ("random-redrawn", "random-steps")
    )
    mean = torch.tensor(ours).double().mean() - torch.tensor(control).double().mean()
    assert contrasts["generation"]["value"] == pytest.approx(mean.item())
    change = next(r for r in facts["rows"] if r["arm"] == "random" and r["metric"] == "change of generation")
    headline = (here / "docs/evidence/headline.md").read_text()
    assert f"| random | 2 | {100 * change['value']:+.1f} [" in headline.replace("*", "")
    page = (here / "docs/evidence/claims.md").read_text()
    assert "## Fresh drawings help" in page and "nan" not in page
    for name in ("claims-redrawing.png", "claims-again.png"):
        assert f"]({name})" in page and (here / "docs/evidence" / name).stat().st_size > 5000

    file.remove("random-steps-seed-1")
    file.add("random-steps-seed-0", kept["random-steps-seed-0"] | {"seconds": 300.0})
    stored = file.results()
    capsys.readouterr()
    assert main([*words, "--list"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert "  random, steps: 2 runs, 1 there, 300 s each" in told
    assert told[-1] == "8 runs, 7 there; about 5 minutes for the others with 1 at once, by what those took"
    assert main(words) == 0
    now = file.results()
    fresh, again = now.pop("random-steps-seed-1"), kept["random-steps-seed-1"]
    assert fresh | {"seconds": 0} == again | {"seconds": 0}, "an arm is a function of recipe and seed"
    assert now == stored, "the others are kept"

    old = kept["random-seed-0"]
    file.add("random-seed-0", old | {"recipe": old["recipe"] | {"prompts": "hard"}})
    expect_error(main(words), capsys, "random-seed-0", "another recipe", f"forget {file.path.relative_to(here)}")
    expect_error(main([*words, "--only", "redraw"]), capsys, "unknown claim 'redraw'", "redrawing")


def test_every_claim_has_its_arms() -> None:
    for name, arm in ARMS.items():
        assert not arm.steps_of or not ARMS[arm.steps_of].steps_of, name
        assert json.loads(json.dumps(arm.recipe())) == arm.recipe()
    assert len({json.dumps(arm.recipe(), sort_keys=True) for arm in ARMS.values()}) == len(ARMS), "equal arms run once"
    assert len({run_name(name, 0) for name in ARMS}) == len(ARMS)
    assert sum(seeds_of(CLAIMS).values()) < 3 * 60 * 2, "a minute each, two at once: within three hours"
    named = {
        arm for claim in CLAIMS.values() for arm in (*claim.arms, *(arm for pair in claim.contrasts for arm in pair))
    }
    assert named == set(ARMS), "no arm without a claim, no claim without its arms"
    assert all(claim.seeds >= 3 for claim in CLAIMS.values())
    controls = {control for claim in CLAIMS.values() for _, control in claim.contrasts}
    assert {"SFT, random accepts", "recall", "SFT, oracle accepts"} <= controls


def arms_that_differ() -> Iterator[str]:
    """Arms that together hold every config, every option and every class of the others."""
    seen: set[str] = set()
    for name, arm in ARMS.items():
        classes = re.findall(r'"class_path": "([^"]*)"', json.dumps(arm.overrides))
        parts = {arm.config, *arm.overrides, *classes}
        if not parts <= seen:
            yield name
        seen |= parts


@pytest.mark.parametrize("name", list(arms_that_differ()))
def test_what_an_arm_records_is_what_fit_is_given(name: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arm = ARMS[name]
    with pytest.raises(SystemExit, match="0"):
        unigap([*fit_command(arm.config, here, arm.overrides), "--print_config"])
    resolved = flat(yaml.safe_load(capsys.readouterr().out))
    recorded = arm.recipe()["options"]
    assert recorded.keys() <= resolved.keys(), "every option reaches the run"
    for option, value in recorded.items():
        if "class_path" not in str(value):
            assert resolved[option] == value, option


def test_recorded_arms_are_recognised() -> None:
    kept = ResultsFile(RECORDED / "claims.parquet").results()
    wanted = {run_name(arm, seed): arm for arm, seeds in seeds_of(CLAIMS).items() for seed in range(seeds)}
    assert {name for name in kept.keys() - wanted.keys() if not name.startswith("base-")} == set()
    assert [name for name, arm in wanted.items() if kept[name]["recipe"] != ARMS[arm].recipe()] == []


def test_the_recommended_config_is_what_was_measured() -> None:
    assert ARMS["recommended"] == Arm("best")
    config = yaml.safe_load((CONFIGS / "best.yaml").read_text())
    assert config["model"]["init_args"]["warmup_steps"] == 10
    assert config["data"]["init_args"]["batch_size"] == setting.Setting().batch_size


def test_an_arm_may_share_out_order_guard_and_average(janus_folder: Path) -> None:
    small = TINY(str(janus_folder))
    changes = {
        **SMALL,
        **ALL,
        JUDGE: spec("unigap.judges.RandomJudge", yes_rate=0.8, seed=0),
        "trainer.limit_val_batches": None,
        "regrow.allocation": spec("unigap.loop.allocation.UntilAccepted", wave=1),
        "data.init_args.order": "easy_first",
        "trainer.callbacks": [spec("unigap.callbacks.Guard", n=20), spec("unigap.callbacks.WeightEMA", decay=0.5)],
    }
    result = run_arm(small, Arm("c_sft", changes), 0, max_steps=1)
    assert result["steps"] == 1
    (round,) = result["rounds"]
    assert round["prompts"] <= round["candidates"] < 3 * round["prompts"], "no more for prompts with an accepted image"


def test_recall_takes_the_steps_it_is_given(janus_folder: Path) -> None:
    arm = Arm("recall", {"data.init_args.trunk_batch": 2})
    result = run_arm(TINY(str(janus_folder)), arm, 0, max_steps=2)
    assert result["steps"] == 2 and result["rounds"] == [] and len(result["right"]) == len(result["fixed"])


def results(seed: int, prompts: int = 30) -> tuple[dict, dict]:
    """A base and an arm with made-up verdicts: two drawings a prompt."""
    rng = torch.Generator().manual_seed(seed)

    def coins(n: int, share: float) -> list[int]:
        return (torch.rand(n, generator=rng) < share).int().tolist()

    def logits(n: int) -> list[float]:
        return torch.randn(n, generator=rng).tolist()

    n = 2 * prompts
    base = {"right": coins(n, 0.4), "own": logits(n), "renders": logits(20), "renders_truth": coins(20, 0.5)}
    base["cells"] = [["color", "easy"]] * prompts
    arm = {
        "right": coins(n, 0.6),
        "own": logits(n),
        "fixed": logits(n),
        "renders": logits(20),
        "steps": 5,
        "rounds": [],
    }
    return base, arm


def test_readings_of_one_seed_are_those_of_the_metrics() -> None:
    base, arm = results(0)
    found = readings(gather([base], [arm]))
    prompt_S = torch.arange(30).repeat_interleave(2)
    right = [torch.tensor(side["right"]).double() for side in (base, arm)]
    ones_S = torch.ones(60, dtype=torch.float64)
    change = paired_difference((right[0], ones_S, prompt_S), (right[1], ones_S, prompt_S))
    ours = found["change of generation"].estimate()
    assert ours.value == pytest.approx(change.value)
    assert (ours.low, ours.high) == pytest.approx((change.low, change.high), abs=0.03)
    wins = win_rate(torch.tensor(base["own"]), torch.tensor(arm["fixed"]), torch.tensor(base["right"]).bool(), prompt_S)
    for name, theirs in {
        "win rate": wins.win_rate,
        "matched win rate": wins.matched_win_rate,
        "change of AUROC": wins.delta_auroc,
        "change of TNR": wins.delta_tnr,
        "change of TPR": wins.delta_tpr,
        "log-odds moved on true positives": wins.logit_change_true_positives,
        "log-odds moved on false positives": wins.logit_change_false_positives,
    }.items():
        ours = found[name].estimate()
        assert ours.value == pytest.approx(theirs.value, abs=1e-6), name
        assert ours.n == theirs.n or "change" in name, name
    yes_S = torch.tensor(arm["own"]) >= 0
    precision = bootstrap_ratio((right[1] * yes_S), yes_S, prompt_S)
    assert found["precision of yes"].estimate().value == pytest.approx(precision.value)


def test_an_arm_and_its_control_are_compared_on_the_seeds_both_have() -> None:
    runs = [results(seed) for seed in range(5)]
    bases = [base for base, _ in runs[:3]]
    arms = {"three": [arm for _, arm in runs[:3]], "two": [arm for _, arm in runs[3:]]}
    measured = {name: gather(bases[: len(own)], own) for name, own in arms.items()}
    claim = Claim("Three beat two", ("three", "two"), contrasts=(("three", "two"),))
    (gap,) = contrasts(claim, measured, {name: readings(m) for name, m in measured.items()})
    mean = [sum(sum(arm["right"]) for arm in own[:2]) / 120 for own in arms.values()]
    assert gap.seeds == 2 and gap.estimates["generation"].value == pytest.approx(mean[0] - mean[1])


def test_every_sentence_of_the_paper_has_its_difference() -> None:
    for said in STATEMENTS:
        claim = CLAIMS[said.claim]
        assert (said.arm, said.control) in claim.contrasts if said.control else said.arm in claim.arms, said.says


def test_what_is_reproduced_is_read_from_the_differences() -> None:
    base, arm = results(0, prompts=200)
    right = {"SFT": 7, "SFT, random accepts": 4}
    made = {name: arm | {"right": [int(i % 10 < n) for i in range(400)]} for name, n in right.items()}
    measured = {name: gather([base], [result]) for name, result in made.items()}
    found = {name: readings(m) for name, m in measured.items()}
    claim = Claim("", tuple(right), contrasts=(("SFT", "SFT, random accepts"),))
    gaps = {"improvement": contrasts(claim, measured, found)}
    section = verdicts_section(found, gaps, Estimate(0.9, 0.8, 0.95, 100))
    verdict = {cells[0]: cells[-1] for cells in (line.strip("| ").split(" | ") for line in section.splitlines())}
    assert verdict["most images that the model rejects are wrong"] == "reproduced"
    assert verdict["SFT on own judgments improves generation"] == "reproduced"
    rising = Statement("falls", "improvement", "generation", "SFT", "SFT, random accepts", falls=True)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(verdicts, "STATEMENTS", (rising,))
        assert "| the opposite |" in verdicts_section(found, gaps, Estimate(0.9, 0.8, 0.95, 100))
    assert verdict["SFT lowers non-unification"] == "no significant difference", "both judge their drawings alike"
    assert not any("replay" in says for says in verdict), "what was not measured is not spoken of"


def test_more_seeds_widen_by_what_differs_between_them_and_narrow_by_their_number() -> None:
    resampling = Resampling(4, 50)
    alike = torch.full((4, 50, 1), 0.5)
    still = resampling.ratio(alike, torch.ones_like(alike)).estimate()
    assert still.low == pytest.approx(0.5) == still.high
    differing = torch.tensor([0.2, 0.4, 0.6, 0.8])[:, None, None].expand(4, 50, 1)
    wide = resampling.ratio(differing, torch.ones_like(differing)).estimate()
    assert wide.value == pytest.approx(0.5) and wide.high - wide.low > 0.3
    same = resampling.ratio(differing, torch.ones_like(differing)).minus(
        resampling.ratio(differing - 0.1, torch.ones_like(differing))
    )
    assert same.estimate().low == pytest.approx(0.1) == same.estimate().high, "paired: what is shared cancels"


def test_the_interval_holds_the_truth_whether_prompts_or_runs_differ_more() -> None:
    prompts, runs = simulate(3, run_spread=0.0, repeats=60), simulate(3, run_spread=5.0, repeats=60)
    assert prompts.wider >= 0.9 and runs.wider >= 0.9
    assert runs.bootstrap < runs.student and prompts.student < prompts.bootstrap
    assert runs.prompts_alone < 0.75 < prompts.prompts_alone


def by_arm(text: str) -> dict[str, dict[str, str]]:
    """Return the cells by column of each row of the table whose first column is ``arm``."""
    (table,) = re.findall(r"^\| arm \|.*\n(?:\|.*\n?)+", text, re.MULTILINE)
    names, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.strip().splitlines()]
    return {row[0]: dict(zip(names[1:], row[1:], strict=True)) for row in rows}


def test_the_readme_shows_what_was_measured() -> None:
    root = Path(__file__).parents[1]
    headline = (root / "docs/evidence/headline.md").read_text().strip()
    measured, shown_rows = (by_arm(text) for text in (headline, (root / "README.md").read_text()))
    assert 1 <= len(shown_rows) <= 5
    for arm, cells in shown_rows.items():
        assert cells.items() <= measured[arm].items() and len(cells) >= 3, arm
    rows = json.loads((root / "docs/evidence/evidence.json").read_text())["rows"]
    lines = headline.splitlines()[2:]
    shown = [(claim, arm) for claim in ("improvement", "recommended") for arm in CLAIMS[claim].arms]
    assert [line.split(" | ")[0].removeprefix("| ") for line in lines] == [arm for _, arm in shown]
    for (claim, arm), line in zip(shown, lines, strict=True):
        wanted = (CLAIMS[claim].title, arm, "change of generation")
        (row,) = [row for row in rows if (row["claim"], row["arm"], row["metric"]) == wanted]
        assert f"{100 * row['value']:+.1f} [{100 * row['low']:+.1f}, {100 * row['high']:+.1f}]" in line
