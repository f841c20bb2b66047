"""Figures of an arm over its seeds and their changes, with intervals over prompts and seeds.

Shapes: K seeds, P prompts, N images a prompt, E rendered images, R resamples.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from evidence.claims.seeded import Seeded
from unigap.metrics.intervals import Resampled, cluster_weights
from unigap.metrics.weighted_auroc import weighted_auroc
from unigap.metrics.win_rate import matched_yes
from unigap.worlds.shapes.grammar import CATEGORIES, DIFFICULTIES

RESAMPLES = 1000


@dataclass(frozen=True)
class Drawn:
    """Images for the test prompts with both verdicts.

    Attributes:
        own_KPN: Log-odds of yes by the model's own judge.
        right_KPN: External verdict, bool.
    """

    own_KPN: Tensor
    right_KPN: Tensor

    @property
    def yes_KPN(self) -> Tensor:
        """Images that the own judge accepts."""
        return self.own_KPN >= 0

    def part(self, keep_P: Tensor) -> Drawn:
        """Return the images of some prompts."""
        return Drawn(self.own_KPN[:, keep_P], self.right_KPN[:, keep_P])


class Resampling:
    """Prompts and seeds of each bootstrap resample, equal for all arms.

    Args:
        seeds: K.
        prompts: P.
    """

    def __init__(self, seeds: int, prompts: int) -> None:
        self.seed_RK = cluster_weights(seeds, RESAMPLES, seed=1)
        self.prompt_RP = cluster_weights(prompts, RESAMPLES, seed=2)

    def ratio(self, hit_KPN: Tensor, counted_KPN: Tensor) -> Seeded:
        """Return the sum of hits among the counted images over the number of counted images."""
        hit_KP = (hit_KPN * counted_KPN).double().sum(-1)
        counted_KP = counted_KPN.double().sum(-1)
        total = counted_KP.sum()
        draws_R = self._sums(hit_KP) / self._sums(counted_KP)
        n, clusters = int((counted_KPN != 0).sum()), int(counted_KP.sum(0).count_nonzero())
        pooled = Resampled((hit_KP.sum() / total).item(), draws_R, n, clusters)
        return Seeded(pooled, hit_KP.sum(1) / counted_KP.sum(1))

    def _sums(self, value_KP: Tensor) -> Tensor:
        return ((self.seed_RK @ value_KP) * self.prompt_RP).sum(1)

    def auroc(self, score_KPN: Tensor, truth_KPN: Tensor, stratum_P: Tensor | None = None) -> Seeded:
        """Return the mean over seeds of the area under the ROC curve; with strata, within each stratum."""
        images = score_KPN.shape[-1]
        weight_RS = self.prompt_RP.repeat_interleave(images, 1)
        ones_1S = torch.ones_like(weight_RS[:1])
        stratum_S = None if stratum_P is None else stratum_P.repeat_interleave(images)
        sides = [(s.flatten().double(), t.flatten().double()) for s, t in zip(score_KPN, truth_KPN, strict=True)]
        area_K = torch.cat([weighted_auroc(*side, ones_1S, stratum_S) for side in sides])
        area_RK = torch.stack([weighted_auroc(*side, weight_RS, stratum_S) for side in sides], 1)
        draws_R = (area_RK * self.seed_RK).sum(1) / self.seed_RK.sum(1)
        return Seeded(Resampled(area_K.mean().item(), draws_R, score_KPN.numel(), score_KPN.shape[1]), area_K)


@dataclass(frozen=True)
class Measured:
    """Results of an arm over its seeds, and of the base model on the same prompts and seeds.

    Attributes:
        base: Images of the base model.
        drawn: Images of the trained model for the same prompts and seeds.
        fixed_KPN: Log-odds of yes that the trained judge gives to the images of the base model.
        renders_KE: Log-odds of yes for captions of rendered images.
        base_renders_KE: The same of the base model.
        renders_truth_E: Which captions are true, bool.
        cells: Category and difficulty of each prompt.
        steps: Optimizer steps of each seed.
        rounds: Counts of each round, for each seed.
    """

    base: Drawn
    drawn: Drawn
    fixed_KPN: Tensor
    renders_KE: Tensor
    base_renders_KE: Tensor
    renders_truth_E: Tensor
    cells: Sequence[tuple[str, str]]
    steps: tuple[int, ...]
    rounds: tuple[Sequence[Mapping[str, int]], ...]

    @property
    def seeds(self) -> int:
        """K."""
        return len(self.steps)

    def first(self, seeds: int) -> Measured:
        """Return the results of the first ``seeds`` seeds."""
        base, drawn = (Drawn(d.own_KPN[:seeds], d.right_KPN[:seeds]) for d in (self.base, self.drawn))
        cut = {name: getattr(self, name)[:seeds] for name in ("fixed_KPN", "renders_KE", "base_renders_KE")}
        return replace(self, base=base, drawn=drawn, steps=self.steps[:seeds], rounds=self.rounds[:seeds], **cut)

    @property
    def category_P(self) -> Tensor:
        """Index of each prompt's category, int64 (P,)."""
        return torch.tensor([CATEGORIES.index(category) for category, _ in self.cells])

    @cached_property
    def resampling(self) -> Resampling:
        """Resamples of prompts and seeds."""
        return Resampling(*self.drawn.own_KPN.shape[:2])

    @cached_property
    def renders_resampling(self) -> Resampling:
        """Resamples of rendered images and seeds."""
        return Resampling(*self.renders_KE.shape)


def gather(bases: Sequence[Mapping[str, Any]], results: Sequence[Mapping[str, Any]]) -> Measured:
    """Stack the results of an arm and of the base model, one of each for a seed."""

    def stack(rows: Sequence[Mapping[str, Any]], name: str) -> Tensor:
        value_KS = torch.tensor([row[name] for row in rows], dtype=torch.float64)
        return value_KS.view(len(rows), len(bases[0]["cells"]), -1)

    def drawn(rows: Sequence[Mapping[str, Any]]) -> Drawn:
        return Drawn(stack(rows, "own"), stack(rows, "right").bool())

    def renders(rows: Sequence[Mapping[str, Any]]) -> Tensor:
        return torch.tensor([row["renders"] for row in rows], dtype=torch.float64)

    return Measured(
        drawn(bases),
        drawn(results),
        stack(results, "fixed"),
        renders(results),
        renders(bases),
        torch.tensor(bases[0]["renders_truth"]).bool(),
        [tuple(cell) for cell in bases[0]["cells"]],
        tuple(row["steps"] for row in results),
        tuple(row["rounds"] for row in results),
    )


Figure = Callable[[Measured, Drawn], Seeded]

DRAWING: dict[str, Figure] = {
    "generation": lambda m, d: m.resampling.ratio(d.right_KPN, torch.ones_like(d.right_KPN)),
    "non-unification": lambda m, d: m.resampling.ratio(~d.yes_KPN, torch.ones_like(d.yes_KPN)),
    "precision of yes": lambda m, d: m.resampling.ratio(d.right_KPN, d.yes_KPN),
    "weak-generation share": lambda m, d: m.resampling.ratio(~d.right_KPN, ~d.yes_KPN),
}
"""Figures of the images of a model, judged by itself and by the oracle."""

JUDGING: dict[str, Callable[[Measured, Tensor], Seeded]] = {
    "TNR": lambda m, logit_KPN: m.resampling.ratio(logit_KPN < 0, ~m.base.right_KPN),
    "TPR": lambda m, logit_KPN: m.resampling.ratio(logit_KPN >= 0, m.base.right_KPN),
    "AUROC": lambda m, logit_KPN: m.resampling.auroc(logit_KPN, m.base.right_KPN),
    "AUROC within categories": lambda m, logit_KPN: m.resampling.auroc(logit_KPN, m.base.right_KPN, m.category_P),
}
"""Figures of a judge on the fixed images, which the base model sampled before any training."""


def readings(m: Measured) -> dict[str, Seeded]:
    """Return every figure of an arm and its change from the base model."""
    found: dict[str, Seeded] = {}
    for name, figure in DRAWING.items():
        found[name] = figure(m, m.drawn)
        found[f"change of {name}"] = found[name].minus(figure(m, m.base))
    for name, judged in JUDGING.items():
        found[name] = judged(m, m.fixed_KPN)
        found[f"change of {name}"] = found[name].minus(judged(m, m.base.own_KPN))
    accuracy = _understanding(m, m.renders_KE)
    found["understanding on renders"] = accuracy
    found["change of understanding on renders"] = accuracy.minus(_understanding(m, m.base_renders_KE))
    return found | _drift(m)


def base_readings(m: Measured) -> dict[str, Seeded]:
    """Return the figures of the base model."""
    drawn = {name: figure(m, m.base) for name, figure in DRAWING.items()}
    judged = {name: figure(m, m.base.own_KPN) for name, figure in JUDGING.items()}
    return {**drawn, **judged, "understanding on renders": _understanding(m, m.base_renders_KE)}


def _understanding(m: Measured, logit_KE: Tensor) -> Seeded:
    hit_KE1 = ((logit_KE >= 0) == m.renders_truth_E)[..., None]
    return m.renders_resampling.ratio(hit_KE1, torch.ones_like(hit_KE1))


def _drift(m: Measured) -> dict[str, Seeded]:
    """Return the win rate of the paper, the win rate at the yes-rate of the base judge, and the change of log-odds."""
    before_KPN, after_KPN, truth_KPN = m.base.yes_KPN, m.fixed_KPN >= 0, m.base.right_KPN
    matched = [
        matched_yes(logit_PN.flatten(), int(yes_PN.sum())).view_as(yes_PN)
        for logit_PN, yes_PN in zip(m.fixed_KPN, before_KPN, strict=True)
    ]
    matched_KPN = torch.stack(matched)
    moved_KPN = m.fixed_KPN - m.base.own_KPN
    return {
        "win rate": m.resampling.ratio(after_KPN == truth_KPN, after_KPN != before_KPN),
        "matched win rate": m.resampling.ratio(matched_KPN == truth_KPN, matched_KPN != before_KPN),
        "log-odds moved on true positives": m.resampling.ratio(moved_KPN, before_KPN & truth_KPN),
        "log-odds moved on false positives": m.resampling.ratio(moved_KPN, before_KPN & ~truth_KPN),
    }


HITS: dict[str, Callable[[Drawn], Tensor]] = {
    "generation": lambda drawn: drawn.right_KPN,
    "non-unification": lambda drawn: ~drawn.yes_KPN,
}


def by_cell(m: Measured, attribute: int) -> dict[str, dict[str, Seeded]]:
    """Return figures of the images for each category (0) or difficulty (1), before and after training."""
    found: dict[str, dict[str, Seeded]] = {}
    present = {cell[attribute] for cell in m.cells}
    for name in [name for name in (CATEGORIES, DIFFICULTIES)[attribute] if name in present]:
        keep_P = torch.tensor([cell[attribute] == name for cell in m.cells])
        counted_KPN = keep_P[None, :, None].expand_as(m.base.right_KPN)
        found[name] = {
            f"{title} {moment}": m.resampling.ratio(hit_KPN(drawn), counted_KPN)
            for moment, drawn in (("before", m.base), ("after", m.drawn))
            for title, hit_KPN in HITS.items()
        }
    return found
