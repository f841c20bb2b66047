"""Figures of each benchmark from answers: a score for each image, the figures by group, and the published one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from unigap.evaluation.scoring.answers import ImageAnswers, Score
from unigap.evaluation.scoring.compbench import score_compbench
from unigap.evaluation.scoring.dsg import score_dpg_as_published, score_dsg
from unigap.evaluation.scoring.geneval import score_geneval
from unigap.evaluation.scoring.tally import by_tag, mean, mean_of_tags
from unigap.evaluation.scoring.tifa import score_tifa
from unigap.evaluation.scoring.wise import SHARES, score_wise
from unigap.metrics.intervals import Estimate
from unigap.records import Prompt


@dataclass(frozen=True)
class Scored:
    """Scores of a benchmark.

    Attributes:
        images: A score for each image, in the order of the answers; empty where a published program leaves some out.
        figures: Estimates by group; the published figure is the last.
    """

    images: Sequence[Score]
    figures: Mapping[str, Estimate]


Rule = Callable[[Sequence[ImageAnswers], Sequence[Prompt]], Scored]


def _tags(scores: Sequence[Score], shares: Mapping[str, float] | None = None) -> Scored:
    return Scored(scores, {**by_tag(scores), "mean of tags": mean_of_tags(scores, shares)})


def _images_and_kinds(scores: Sequence[Score], kinds: Sequence[Score], aligned: bool = True) -> Scored:
    if not scores:
        raise ValueError("the published program leaves out every image that was given; answer other prompts too")
    questions = {f"questions: {kind}": estimate for kind, estimate in by_tag(kinds).items()}
    return Scored(scores if aligned else (), {**by_tag(scores), **questions, "mean of images": mean(scores)})


RULES: Mapping[str, Rule] = {
    "geneval": lambda images, _: _tags(score_geneval(images)),
    "compbench": lambda images, _: _tags(score_compbench(images)),
    "dsg": lambda images, _: _images_and_kinds(*score_dsg(images)),
    "dpg-as-published": lambda images, prompts: _images_and_kinds(
        *score_dpg_as_published(images, prompts[0].id), aligned=False
    ),
    "tifa": lambda images, _: _images_and_kinds(*score_tifa(images)),
    "wise": lambda images, _: _tags(score_wise(images), SHARES),
}
"""The rule of each benchmark, by name."""
