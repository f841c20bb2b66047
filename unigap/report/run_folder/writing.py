"""Write the files that the report is made of: figures, a gallery, and images with flipped verdicts."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from unigap.evaluation.gap import (
    Verdicts,
    compare,
    gap_by,
    gap_scores,
    judge_scores,
    paired_share,
    probe_scores,
    redrawn_scores,
    rejudged_scores,
)
from unigap.evaluation.probe_set import ProbeSet
from unigap.files.durable import make_folder, write_durable
from unigap.files.images import to_png
from unigap.files.seals import write_sealed
from unigap.metrics.intervals import Estimate
from unigap.metrics.scores import says_yes
from unigap.report.run_folder.contents import Drawing, Exhibit, Rejudged
from unigap.report.run_folder.measured import Samples

# Shape legend: S samples, E statements of the probe set.

PACKAGES = ("unigap", "torch", "lightning", "transformers", "torchmetrics")
REJUDGED = 6
"""Maximum number of images shown for each way in which a verdict flipped."""


@dataclass(frozen=True)
class Measurement:
    """One measurement of a model.

    Attributes:
        verdicts: Its images for held-out prompts, with both verdicts.
        answers_E: Its log-odds of yes on the probe set; None without a probe set.
    """

    verdicts: Verdicts
    answers_E: torch.Tensor | None


def run_figures(
    before: Measurement, after: Measurement, again_S: torch.Tensor, probe_set: ProbeSet | None
) -> dict[str, Any]:
    """Return the measured part of ``summary.json``.

    Args:
        before: The model before training.
        after: The model after training, on the same prompts and seeds.
        again_S: Log-odds of yes of the judge after training on the images generated before.
        probe_set: The probe set, if any.
    """
    old, new = before.verdicts, after.verdicts
    change = compare(old, new, again_S)
    win = change.win and {name: getattr(change.win, name) for name in ("win_rate", "matched_win_rate", "delta_auroc")}
    judged = {"before": (before, old.own_S), "after": (after, again_S)}
    figures = {
        when: gap_scores(measurement.verdicts)
        | judge_scores(logit_S, old.right_S, old.prompt_S, category_S=old.category_S)
        | (probe_scores(probe_set, measurement.answers_E) if probe_set and measurement.answers_E is not None else {})
        for when, (measurement, logit_S) in judged.items()
    }
    return {
        "n_eval_prompts": len(old.prompts),
        "before": _plain(figures["before"]),
        "after": _plain(figures["after"] | (win or {})),
        "delta": _plain(change.delta | _understanding_delta(before, after, probe_set)),
        "by_category": _by(old, new, "category"),
        "by_difficulty": _by(old, new, "difficulty"),
        "redrawn": _plain(redrawn_scores(old, new)),
        "rejudged": _plain(rejudged_scores(old, again_S)),
    }


def samples_of(before: Measurement, after: Measurement, again_S: torch.Tensor, probe_set: ProbeSet | None) -> Samples:
    """Return the verdicts on each sample after training; arguments as for `run_figures`."""
    old, new = before.verdicts, after.verdicts
    own_E, right_E, picture_E = torch.zeros(0), torch.zeros(0), torch.zeros(0, dtype=torch.long)
    if probe_set is not None and after.answers_E is not None:
        own_E, right_E, picture_E = after.answers_E, probe_set.truth_B, probe_set.cluster_B
    return Samples(
        candidates=len(new.own_S) // len(new.prompts),
        category=[] if old.category_S is None else old.category_S.tolist(),
        own=_logits(new.own_S),
        right=None if new.right_S is None else new.right_S.tolist(),
        fixed_own=_logits(again_S),
        fixed_right=None if old.right_S is None else old.right_S.tolist(),
        exam_own=_logits(own_E),
        exam_right=right_E.bool().tolist(),
        exam_picture=picture_E.tolist(),
    )


def _logits(logit_S: torch.Tensor) -> list[float]:
    """Round logits down to four decimals, so that no verdict flips."""
    return [math.floor(10_000 * logit) / 10_000 for logit in logit_S.double().tolist()]


def _understanding_delta(before: Measurement, after: Measurement, probe_set: ProbeSet | None) -> dict[str, Estimate]:
    """Return the paired change of understanding on the probe set; empty without one."""
    if probe_set is None or before.answers_E is None or after.answers_E is None:
        return {}
    first, second = (
        (says_yes(answers_E) == probe_set.truth_B, torch.ones_like(probe_set.truth_B))
        for answers_E in (before.answers_E, after.answers_E)
    )
    return {"understanding_renders": paired_share(first, probe_set.cluster_B, second, probe_set.cluster_B)}


def _plain(found: Mapping[str, Estimate]) -> dict[str, Any]:
    return {name: estimate.to_dict() for name, estimate in found.items()}


def _by(before: Verdicts, after: Verdicts, attribute: str) -> dict[str, Any]:
    def kept(found: dict[str, Estimate]) -> dict[str, Any]:
        return _plain({name: found[name] for name in ("generation", "non_unification") if name in found})

    old, new = gap_by(before, attribute), gap_by(after, attribute)
    return {name: {"before": kept(old[name]), "after": kept(new[name])} for name in old}


def versions() -> dict[str, str]:
    """Return the versions of the packages that affect a run."""
    return {name: version(name) for name in PACKAGES}


def write_gallery(folder: Path, before: Verdicts, after: Verdicts, prompts: int) -> None:
    """Write ``gallery.json``: the first image of some prompts, before and after, with both verdicts.

    The prompts are chosen so that each outcome, right or wrong before and after, is shown as often as it occurs.
    """
    per_prompt = len(before.own_S) // len(before.prompts)
    first_P = torch.arange(len(before.prompts)) * per_prompt
    exhibits = []
    for number, i in enumerate(_representative(first_P, before, after, prompts)):
        first = _drawing(folder, f"gallery/{number:02d}-before.png", before, i)
        last = _drawing(folder, f"gallery/{number:02d}-after.png", after, i)
        exhibits.append(Exhibit(**_about(before, i), before=first, after=last))
    _write(folder / "gallery.json", exhibits)


def _representative(first_P: torch.Tensor, before: Verdicts, after: Verdicts, count: int) -> list[int]:
    """Return at most ``count`` of the images ``first_P``, evenly spaced within each outcome, in ascending order."""
    outcome_P = torch.zeros_like(first_P)
    if before.right_S is not None and after.right_S is not None:
        outcome_P = 2 * before.right_S[first_P].long() + after.right_S[first_P].long()
    sorted_P = first_P[outcome_P.argsort(stable=True)]
    shown = min(count, len(sorted_P))
    return sorted(int(sorted_P[number * len(sorted_P) // shown]) for number in range(shown))


def _about(verdicts: Verdicts, i: int) -> dict[str, Any]:
    candidate = verdicts.sampled.candidates[i]
    prompt = candidate.prompt
    return {
        "prompt": prompt.text,
        "category": prompt.category,
        "difficulty": prompt.difficulty,
        "seed": candidate.seed,
    }


def _drawing(folder: Path, name: str, verdicts: Verdicts, i: int) -> Drawing:
    _save_picture(folder / name, verdicts, i)
    right = None if verdicts.right_S is None else bool(verdicts.right_S[i])
    return Drawing(name, _p_yes(verdicts.own_S, i), right)


def _p_yes(logit_S: torch.Tensor, i: int) -> float:
    return float(logit_S[i].double().sigmoid())


def _save_picture(path: Path, verdicts: Verdicts, i: int) -> None:
    make_folder(path.parent)
    write_durable(path, to_png(verdicts.sampled.pixels_BCHW[i]))


def write_rejudged(folder: Path, before: Verdicts, again_S: torch.Tensor) -> None:
    """Write ``rejudged.json``: the images whose verdict flipped, those with the largest change first.

    Without an external judge the list is empty, because it is unknown which images are right.
    """
    rows: list[Rejudged] = []
    right_S = before.right_S
    for i in () if right_S is None else _turned(before.own_S, again_S, right_S):
        name = f"rejudged/{len(rows):02d}.png"
        _save_picture(folder / name, before, i)
        p_before, p_after = _p_yes(before.own_S, i), _p_yes(again_S, i)
        right = bool(right_S[i])  # type: ignore[index]
        rows.append(Rejudged(**_about(before, i), image=name, p_before=p_before, p_after=p_after, external=right))
    _write(folder / "rejudged.json", rows)


def _turned(own_S: torch.Tensor, again_S: torch.Tensor, right_S: torch.Tensor) -> Iterator[int]:
    """Yield the indices of images whose verdict flipped, at most ``REJUDGED`` for each old verdict and truth."""
    yes_S, still_S, change_S = says_yes(own_S), says_yes(again_S), (again_S - own_S).abs()
    for accepted in (True, False):
        for right in (False, True):
            among = ((yes_S == accepted) & (still_S != accepted) & (right_S == right)).nonzero().flatten()
            order = change_S[among].argsort(descending=True, stable=True)
            yield from among[order[:REJUDGED]].tolist()


def _write(path: Path, rows: list[Any]) -> None:
    write_sealed(path, json.dumps([dataclasses.asdict(row) for row in rows], indent=1).encode())
