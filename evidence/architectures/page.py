"""The page of the architectures: every number and every sentence with a number in it comes from what was measured."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from evidence.architectures.plan import ARMS, ArchitecturesPlan
from evidence.claims.contrasts import Contrast, Readings, contrasts
from evidence.claims.figures import draw_claim
from evidence.claims.page import claim_rows, section
from evidence.claims.plan import Claim, run_name
from evidence.claims.readings import Measured, base_readings, gather, readings
from evidence.claims.setting import Setting
from evidence.markdown import percent, points, shown
from evidence.results_file import Result, ResultsFile
from evidence.statistics import over_seeds
from evidence.theory_summary import coupling_table
from unigap.callbacks.dynamics_probes import GROUPS
from unigap.files.durable import make_folder, write_durable
from unigap.files.markdown import table
from unigap.metrics.intervals import Estimate

Results = Mapping[str, Result]
FIGURE = "architectures.png"

FIRST, RANDOM, *_ = ARMS
"""The arm that is compared with its controls, and the first of these."""


def write_page(plan: ArchitecturesPlan, settings: Mapping[str, Setting], results: Results, out: Path) -> list[Path]:
    """Writes ``architectures.md``, its picture and ``architectures.json``, which holds the numbers of the page.

    Returns:
        The page and the numbers.
    """
    make_folder(out)
    measured = {f"{name}: {arm}": _measured(plan, results, name, arm) for name in settings for arm in ARMS}
    found = {name: readings(m) for name, m in measured.items()}
    claim = _claim(list(settings))
    gaps = contrasts(claim, measured, found)
    draw_claim(claim, found, out / FIGURE)
    told = {name: _coupling(plan, results, name) for name in settings}
    parts = [
        _head(plan, settings, results),
        _models(plan, results, measured),
        _coupled(told),
        _sharing(told, out),
        _answer(told, found, gaps),
        section(claim, measured, found, gaps, FIGURE),
    ]
    page, numbers = out / "architectures.md", out / "architectures.json"
    write_durable(page, ("\n\n".join(parts) + "\n").encode())
    rows = claim_rows(claim, measured, found, gaps)
    rows += [
        {"claim": "coupling", "arm": name, "metric": metric, **estimate.to_dict(), "seeds": plan.seeds}
        for name, estimates in told.items()
        for metric, estimate in estimates.items()
    ]
    facts = {"settings": {name: setting.recipe() for name, setting in settings.items()}, "rows": rows}
    write_durable(numbers, json.dumps(facts, indent=1).encode())
    return [page, numbers]


def _claim(names: Sequence[str]) -> Claim:
    ours, *controls = FIRST, *list(ARMS)[1:3]
    return Claim(
        "What self-improvement does to each",
        tuple(f"{name}: {arm}" for name in names for arm in ARMS),
        contrasts=tuple((f"{name}: {ours}", f"{name}: {control}") for name in names for control in controls),
        decides="AUROC",
    )


def _arm(plan: ArchitecturesPlan, results: Results, name: str, arm: str) -> list[Result]:
    return [results[run_name(f"{name}, {arm}", seed)] for seed in range(plan.seeds)]


def _measured(plan: ArchitecturesPlan, results: Results, name: str, arm: str) -> Measured:
    return gather(_arm(plan, results, name, "base"), _arm(plan, results, name, arm))


def _coupling(plan: ArchitecturesPlan, results: Results, name: str) -> dict[str, Estimate]:
    """Mean over seeds of the cosine between the two gradients of a drawing, all of them and by group."""
    seeds = _arm(plan, results, name, "coupling")
    tests = [seed["tests"]["own_cosine"] for seed in seeds]
    told = {key: over_seeds([test[key] for test in tests]) for key in ("value", "null_mean")}
    largest = max(test["p_value"] for test in tests)
    told["largest p"] = Estimate(largest, largest, largest, len(tests))
    for group in GROUPS:
        told[group] = over_seeds([seed["groups"][group]["value"] for seed in seeds if group in seed["groups"]])
    return told


def _head(plan: ArchitecturesPlan, settings: Mapping[str, Setting], results: Results) -> str:
    minutes = sum(result.get("seconds", 0) for result in results.values()) / 60
    weights = "; ".join(f"{name} {setting.weights[:12]}" for name, setting in settings.items())
    prompts = len(next(iter(settings.values())).test_prompts("standard"))
    return (
        "# Does more sharing couple the branches, and does coupling help?\n\n"
        "Made by `python -m evidence architectures`; nothing here is typed by hand. Small models of one size, "
        f"pretrained on the same lessons, go through the same arms (weights {weights}; {minutes:.0f} minutes on one "
        f"thread). Training: at most {plan.per_cell} prompts for each category and tier; measured on {prompts} test "
        "prompts. Figures are percent, changes are points, brackets are 95 % intervals that resample prompts and seeds "
        "together; bold leaves zero out. Who accepts at random is the control for what training on any drawings does."
    )


def _models(plan: ArchitecturesPlan, results: Results, measured: Mapping[str, Measured]) -> str:
    rows = []
    for name, architecture in plan.architectures().items():
        counted = _arm(plan, results, name, "coupling")[0]
        base = {key: value.estimate() for key, value in base_readings(measured[f"{name}: {FIRST}"]).items()}
        size = f"{counted['parameters'] / 1e6:.2f} M, {counted['trained'] / 1e6:.2f} M"
        rows.append([name, architecture.shared, size, *map(percent, base.values())])
    header = ("model", "shared by both branches", "weights, trained", *base)
    return "## The models before any arm\n\n" + table(header, rows)


def _coupled(told: Mapping[str, Mapping[str, Estimate]]) -> str:
    rows = [
        [
            name,
            shown(estimates["value"], 4),
            shown(estimates["null_mean"], 4),
            f"{estimates['largest p'].value:.3f}",
            *(shown(estimates[group], 4) for group in GROUPS),
        ]
        for name, estimates in told.items()
    ]
    header = ("model", "cosine", "dealt to other drawings", "largest p of a seed", *GROUPS)
    return (
        "## Coupling\n\nMean cosine between the gradients of log pi(image | prompt) and of the judge's log-odds of yes "
        "for the same drawing, over the trunk; over seeds, with Student's interval; the last four by what the judge "
        "says and whether it is right. Show-o's likelihood is its estimate from fixed masks.\n\n" + table(header, rows)
    )


def _sharing(told: Mapping[str, Mapping[str, Estimate]], out: Path) -> str:
    """What the cosines say of sharing, and what they cannot say."""
    names = list(told)
    overlapping = [
        f"{first} and {second}"
        for first, second in itertools.combinations(names, 2)
        if told[first]["value"].low <= told[second]["value"].high
        and told[second]["value"].low <= told[first]["value"].high
    ]
    ordered, first = told["Emu3"]["value"], told["Emu3, question first"]["value"]
    return (
        "## Is it the sharing?\n\nThis does not show that more sharing couples more. Each model stands for its family "
        "alone, with weights, a tokenizer and an attention of its own; intervals are over seeds of drawings and know "
        f"nothing of other checkpoints. Intervals that overlap: {'; '.join(overlapping) or 'none'}. The two Emu3 share "
        "the same parts and were pretrained on the same lessons; they differ in the order of image and question: "
        f"{shown(ordered, 4)} with the image first, {shown(first, 4)} with the question first.{_controlled(out)}"
    )


def _controlled(out: Path) -> str:
    """The one increase of sharing within a model, from the results of the theory page, where they are there."""
    file = ResultsFile(out / "theory.parquet")
    results = file.results()
    if "shared" not in results:
        return ""
    table = coupling_table(results, file.recipe()["seeds"])
    return (
        " The one increase of sharing in an otherwise equal model, the Janus of the [theory page](theory.md) taught to "
        f"read its own image tokens, changes the cosine from {shown(table['base']['own_cosine'], 4)} to "
        f"{shown(table['shared tokens']['own_cosine'], 4)}."
    )


def _answer(told: Mapping[str, Mapping[str, Estimate]], found: Readings, gaps: Sequence[Contrast]) -> str:
    """The answer in words, which follow from the intervals."""
    rows = []
    for name in sorted(told, key=lambda name: told[name]["value"].value):
        (gap,) = [gap for gap in gaps if gap.name == f"{name}: {FIRST} minus {name}: {RANDOM}"]
        change, beyond = found[f"{name}: {FIRST}"]["change of AUROC"].estimate(), gap.estimates["AUROC"]
        coupling = f"{told[name]['value'].value:.4f}"
        rows.append([name, coupling, points(change), _direction(change), points(beyond), _direction(beyond)])
    header = ("model", "cosine", "change of AUROC", "which is", "minus random acceptance", "which is")
    return (
        f"## The answer\n\nChange of the judge's AUROC on fixed images by {FIRST} on its own judgments, against the "
        "base model and against random acceptance. Models are in the order of their coupling, the weakest first.\n\n"
        + table(header, rows)
    )


def _direction(change: Estimate) -> str:
    return ("no significant change", "higher", "lower")[change.side()]
