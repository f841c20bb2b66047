"""What a guard reads at a validation: verdicts on the sampled images, the images, and the verdicts in the pool."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from unigap.evaluation.gap_meter import GapMeter
from unigap.evaluation.image_features import ImageFeatures
from unigap.loop.ranks import Ranks
from unigap.loop.sampling import SampledBatch, stack_drawings
from unigap.loop.selection import threshold_logit
from unigap.loop.verdict_columns import verdict_columns
from unigap.metrics import picture_figures
from unigap.metrics.scores import says_yes
from unigap.metrics.watches import UnitValues
from unigap.stages import ImproveStage

# Shape legend: N images of a prompt, R rows of the pool.


class PictureFigures:
    """Collect the figures of the images of each prompt, batch by batch.

    Args:
        features: What ``spread`` measures distance in.
        names: Figures to compute, of ``spread``, ``edges``, ``code_entropy`` and ``duplicates``.
    """

    def __init__(self, features: ImageFeatures, names: Sequence[str]) -> None:
        self.features, self.names = features, names
        self._rows: list[tuple[str, list[float]]] = []

    def add(self, batches: Sequence[SampledBatch]) -> None:
        """Add sampled images; those of a prompt come together."""
        for batch in batches:
            place = 0
            for prompt_id, group in itertools.groupby(batch.candidates, lambda candidate: candidate.prompt.id):
                candidates = list(group)
                pixels_NCHW = batch.pixels_BCHW[place : place + len(candidates)]
                part = SampledBatch(candidates, pixels_NCHW)
                self._rows.append((prompt_id, [self._figure(name, part) for name in self.names]))
                place += len(candidates)

    def _figure(self, name: str, group: SampledBatch) -> float:
        if name == "spread":
            return picture_figures.spread(self.features.of(group.pixels_BCHW))
        if name == "edges":
            return picture_figures.edge_density(group.pixels_BCHW)
        if name == "duplicates":
            return picture_figures.duplicates(group.pixels_BCHW)
        return picture_figures.code_entropy(stack_drawings(group.candidates))

    def gathered(self, ranks: Ranks, clusters: Mapping[str, int]) -> dict[str, UnitValues]:
        """Return the figures of all processes by name, and begin anew.

        Collective: all processes must call it.

        Args:
            ranks: The processes.
            clusters: Number of each prompt, by id.
        """
        rows = dict(itertools.chain(*(json.loads(text) for text in ranks.gather(json.dumps(self._rows)))))
        self._rows = []
        unit_P = torch.tensor([clusters[prompt_id] for prompt_id in sorted(rows)])
        value_PF = torch.tensor([rows[prompt_id] for prompt_id in sorted(rows)], dtype=torch.float64)
        columns = zip(self.names, value_PF.unbind(-1), strict=True)
        return {name: UnitValues.means(unit_P, value_P) for name, value_P in columns}


def accepted_figure(meter: GapMeter) -> UnitValues:
    """Return the share of images that the model's own judge accepts; collective."""
    verdicts = meter.own_verdicts()
    return UnitValues.means(verdicts["prompt"], says_yes(verdicts["logit"]))


def redrawn_figure(stage: ImproveStage, rounds: range) -> UnitValues | None:
    """Return the share of images in some rounds of the pool that the selecting judge accepts; ``None`` without one."""
    if not rounds:
        return None
    pool, upto = stage.pool_data.pool, rounds[-1]
    columns = verdict_columns(pool.candidates(upto), pool.logits(stage.judge.name, upto))
    rows_R = np.concatenate([columns.of_round(number) for number in rounds])
    rows_R = rows_R[~np.isnan(columns.logit_N[rows_R])]
    if not len(rows_R):
        return None
    yes_R = columns.logit_N[rows_R] >= threshold_logit(stage.objective.threshold)
    return UnitValues.means(torch.from_numpy(columns.group_N[rows_R].astype(np.int64)), torch.from_numpy(yes_R))
