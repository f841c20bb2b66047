"""The page of a benchmark's result: figures by group, how it differs from the published one, sample pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from unigap.bench.base import Benchmark
from unigap.files.markdown import cell, table
from unigap.metrics.intervals import Estimate

SHOWN = 2
"""Best and worst pictures shown of each group."""


@dataclass(frozen=True)
class Picture:
    """A picture with its score.

    Attributes:
        file: Path in the folder of the result.
        prompt: Text of its prompt.
        tag: Group of its prompt.
        value: Its score.
    """

    file: str
    prompt: str
    tag: str
    value: float


def page(
    benchmark: Benchmark,
    figures: Mapping[str, Estimate],
    pictures: Sequence[Picture],
    p_yes: Sequence[float],
    facts: Mapping[str, Any],
) -> str:
    """Return the page as Markdown.

    Args:
        benchmark: What was measured.
        figures: Estimates by group; the published figure is the last.
        pictures: All pictures.
        p_yes: The judge's probability of yes for each picture.
        facts: Checkpoint, sampling and the like, by name.
    """
    headline = list(figures)[-1]
    accepted = sum(p >= 0.5 for p in p_yes) / len(p_yes)
    parts = [
        f"# {benchmark.title}: {figures[headline].value:.3f}",
        f"{headline}, with a 95 % interval that resamples whole prompts. The judge {facts['judge of the pool']!r} "
        f"accepts {accepted:.1%} of the images.",
        table(["group", "score", "95 % interval", "n"], [_row(name, e) for name, e in figures.items()]),
        "## How it was measured",
        table(["what", "value"], facts.items()),
        benchmark.differs,
        "## Pictures",
        f"The {SHOWN} best and the {SHOWN} worst of each group, by score; of equal scores the first.",
        *_shown(pictures),
        "`results.parquet` has a row for each picture, `answers.jsonl` what was measured in it, and `scores.json` the "
        "figures.",
    ]
    return "\n\n".join(parts) + "\n"


def _row(name: str, estimate: Estimate) -> list[Any]:
    ends = f"{estimate.low:.3f} to {estimate.high:.3f}" if estimate.has_interval else "unknown"
    return [name, f"{estimate.value:.3f}", ends, estimate.n]


def _shown(pictures: Sequence[Picture]) -> list[str]:
    parts = []
    for tag in dict.fromkeys(picture.tag for picture in pictures):
        ranked = sorted((picture for picture in pictures if picture.tag == tag), key=lambda picture: -picture.value)
        chosen = ranked if len(ranked) <= 2 * SHOWN else [*ranked[:SHOWN], *ranked[-SHOWN:]]
        images = [f"![{picture.value:.2f}]({quote(picture.file)})" for picture in chosen]
        titles = [f"{cell(picture.prompt)} ({picture.value:.2f})" for picture in chosen]
        parts += [f"### {tag}", table(images, [titles])]
    return parts
