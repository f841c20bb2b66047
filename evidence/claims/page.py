"""Write the page of the claims; every number on it comes from the recorded results."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evidence.claims.contrasts import CONTRASTED, Contrast, Readings, contrasts
from evidence.claims.figures import draw_claim
from evidence.claims.plan import Claim
from evidence.claims.readings import DRAWING, Measured, by_cell, readings
from evidence.claims.setting import Setting
from evidence.claims.verdicts import verdicts_section
from evidence.markdown import percent, points
from evidence.results_file import Result
from unigap.files.durable import make_folder, write_durable
from unigap.files.markdown import table
from unigap.metrics.intervals import Estimate

POWER = (1.960 + 0.842) / 1.960
"""Smallest noticeable effect with 80 % power, as a multiple of half the width of a 95 % interval."""


def write_page(
    setting: Setting,
    claims: Mapping[str, Claim],
    measured: Mapping[str, Measured],
    results: Mapping[str, Result],
    out: Path,
) -> list[Path]:
    """Write ``claims.md``, its figures and ``evidence.json`` (rows of claim, arm, metric, value, interval, n, seeds).

    Returns:
        The page, the README's table, and the numbers.
    """
    make_folder(out)
    found = {arm: readings(m) for arm, m in measured.items()}
    gaps = {name: contrasts(claim, measured, found) for name, claim in claims.items()}
    base = next(iter(measured.values()))
    weak = DRAWING["weak-generation share"](base, base.base).estimate()
    parts = [_head(setting, measured, results), verdicts_section(found, gaps, weak), _origin(base)]
    rows = _origin_rows(base)
    for name, claim in claims.items():
        figure = f"claims-{name}.png"
        draw_claim(claim, found, out / figure)
        parts.append(section(claim, measured, found, gaps[name], figure))
        rows += claim_rows(claim, measured, found, gaps[name])
    page, headline, numbers = out / "claims.md", out / "headline.md", out / "evidence.json"
    write_durable(page, ("\n\n".join(parts) + "\n").encode())
    write_durable(headline, (_headline(claims, measured, found) + "\n").encode())
    facts = {"setting": dataclasses.asdict(setting), "rows": rows}
    write_durable(numbers, json.dumps(facts, indent=1).encode())
    return [page, headline, numbers]


def _head(setting: Setting, measured: Mapping[str, Measured], results: Mapping[str, Result]) -> str:
    minutes = sum(result.get("seconds", 0) for result in results.values()) / 60
    arms = sum(m.seeds for m in measured.values())
    return (
        "# What the paper claims, with controls\n\n"
        f"Made by `python -m evidence claims`; nothing here is typed by hand. {arms} runs of {len(measured)} arms from "
        f"`{setting.checkpoint}` (weights {setting.weights[:12]}), {minutes:.0f} minutes on one thread each. Training: "
        f"at most {setting.per_cell} prompts for each category and tier. Measured on {_prompts(setting)}, "
        f"{setting.test_candidates} images each; understanding on {setting.exam} rendered images. Every arm of a seed "
        "is measured on the same prompts and sampling seeds. Figures are percent, changes are points, brackets are "
        "95 % intervals, paired between arms: the wider of a bootstrap of prompts and seeds and Student's t over seeds "
        "([coverage](coverage.md)). Bold intervals exclude zero; "
        "one in twenty does so by chance where there is no effect. The external judge is the oracle of the embedded "
        "world; it selects training data only in the arms whose name says so. *Fixed images* are those that the base "
        "model sampled for the same prompts, judged again after training."
    )


def _prompts(setting: Setting) -> str:
    count = len(setting.test_prompts("standard"))
    if setting.split != "test":
        return f"{count} {setting.split} prompts"
    return f"{count} test prompts that no setting was tuned on (after the first {setting.skip} of each cell)"


def _headline(claims: Mapping[str, Claim], measured: Mapping[str, Measured], found: Readings) -> str:
    """Return the table of the README: the changes of the arms of some claims."""
    rows = [
        [arm, str(measured[arm].seeds), *(points(found[arm][f"change of {name}"].estimate()) for name in CONTRASTED)]
        for claim in claims.values()
        if claim.headline
        for arm in claim.arms
    ]
    return table(("arm", "seeds", *CONTRASTED), rows)


def _origin(m: Measured) -> str:
    """Return the section on the base model by category and tier."""
    rows = [
        [group, percent(found["generation before"].estimate()), percent(found["non-unification before"].estimate())]
        for attribute in (0, 1)
        for group, found in by_cell(m, attribute).items()
    ]
    base = {name: figure(m, m.base).estimate() for name, figure in DRAWING.items()}
    return (
        "## Where the gap comes from\n\n"
        f"{percent(base['generation'])} % of the images of the base model are right, and it rejects "
        f"{percent(base['non-unification'])} %. Of the images it rejects, the oracle rejects "
        f"{percent(base['weak-generation share'])} % too: that share of the gap is weak generation. "
        f"Of the images it accepts, {percent(base['precision of yes'])} % are right.\n\n"
        + table(("prompts", "generation", "non-unification"), rows)
    )


def section(
    claim: Claim, measured: Mapping[str, Measured], found: Readings, gaps: Sequence[Contrast], figure: str
) -> str:
    """Return the section of a claim: its plot and the tables on generation, judging and controls."""
    parts = [f"## {claim.title}", f"![{claim.title}]({figure})", _drawing_table(claim, measured, found)]
    parts.append(_judging_table(claim, found))
    if gaps:
        parts.append(_contrast_table(claim, gaps))
    return "\n\n".join(parts)


def _drawing_table(claim: Claim, measured: Mapping[str, Measured], found: Readings) -> str:
    header = ("arm", "seeds", "steps", "accepted, right among these", *DRAWING, "change of generation", "of non-unif.")
    rows = []
    for arm in claim.arms:
        m, figures = measured[arm], {name: reading.estimate() for name, reading in found[arm].items()}
        changes = [points(figures[f"change of {name}"]) for name in ("generation", "non-unification")]
        steps = sum(m.steps) / len(m.steps)
        rows.append(
            [arm, str(m.seeds), f"{steps:.0f}", _accepted(m), *(percent(figures[name]) for name in DRAWING), *changes]
        )
    return "Generation:\n\n" + table(header, rows)


def _accepted(m: Measured) -> str:
    """Return the share of accepted candidates, and the share of right ones among them, over all rounds."""
    drawn, accepted, right = (
        sum(count[name] for rounds in m.rounds for count in rounds)
        for name in ("candidates", "accepted", "truly_right")
    )
    return f"{100 * accepted / drawn:.0f} %, {100 * right / max(accepted, 1):.0f} %" if drawn else "-"


def _judging_table(claim: Claim, found: Readings) -> str:
    header = (
        *("arm", "win rate (n)", "matched win rate (n)", "change of AUROC", "within categories", "of TNR", "of TPR"),
        *("log-odds moved, true yes", "false yes", "change on renders"),
    )
    rows = []
    for arm in claim.arms:
        figures = {name: reading.estimate() for name, reading in found[arm].items()}
        wins = [f"{percent(figures[name])} ({figures[name].n})" for name in ("win rate", "matched win rate")]
        changes = [points(figures[f"change of {name}"]) for name in ("AUROC", "AUROC within categories", "TNR", "TPR")]
        moved = [_nats(figures[f"log-odds moved on {kind} positives"]) for kind in ("true", "false")]
        rows.append([arm, *wins, *changes, *moved, points(figures["change of understanding on renders"])])
    return "Judging the fixed images and rendered images:\n\n" + table(header, rows)


def _nats(estimate: Estimate) -> str:
    return f"{estimate.value:+.2f} [{estimate.low:+.2f}, {estimate.high:+.2f}]" if estimate.n else "-"


def _contrast_table(claim: Claim, gaps: Sequence[Contrast]) -> str:
    rows = [
        [
            *(gap.name, str(gap.seeds), *map(points, gap.estimates.values())),
            *(_noticeable(gap.estimates[claim.decides]), _verdict(gap.estimates[claim.decides])),
        ]
        for gap in gaps
    ]
    header = ("arm minus control", "seeds", *CONTRASTED, "noticeable", f"{claim.decides} is")
    return "Compared with controls, on the seeds that both have:\n\n" + table(header, rows)


def _noticeable(gap: Estimate) -> str:
    """Return the smallest effect that is noticed with 80 % power, in points, from the width of the interval."""
    return f"{100 * POWER * (gap.high - gap.low) / 2:.1f}" if gap.has_interval else "-"


def _verdict(gap: Estimate) -> str:
    none = "no significant difference"
    if gap.has_interval:
        none += f"; effects above {100 * max(abs(gap.low), abs(gap.high)):.1f} points are excluded"
    return (none, "higher", "lower")[gap.side()]


def claim_rows(
    claim: Claim, measured: Mapping[str, Measured], found: Readings, gaps: Sequence[Contrast]
) -> list[dict[str, Any]]:
    """Return every figure of a claim's arms and contrasts: claim, arm, metric, value, interval, n and seeds."""
    rows = [
        {"claim": claim.title, "arm": arm, "metric": name, **reading.estimate().to_dict(), "seeds": measured[arm].seeds}
        for arm in claim.arms
        for name, reading in found[arm].items()
    ]
    rows += [
        {"claim": claim.title, "arm": gap.name, "metric": name, **estimate.to_dict(), "seeds": gap.seeds}
        for gap in gaps
        for name, estimate in gap.estimates.items()
    ]
    return rows


def _origin_rows(m: Measured) -> list[dict[str, Any]]:
    found = {name: figure(m, m.base) for name, figure in DRAWING.items()}
    title = "The gap comes from weak generation"
    rows = [("all", name, reading) for name, reading in found.items()]
    rows += [
        (group, name.removesuffix(" before"), reading)
        for attribute in (0, 1)
        for group, cells in by_cell(m, attribute).items()
        for name, reading in cells.items()
        if name.endswith("before")
    ]
    return [
        {"claim": title, "arm": f"base, {group}", "metric": name, **reading.estimate().to_dict(), "seeds": m.seeds}
        for group, name, reading in rows
    ]
