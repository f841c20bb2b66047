"""``unigap score``: figures of a published benchmark from detections or answers, in one table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from unigap.metrics.intervals import Estimate
from unigap.prompts import read_prompts
from unigap.scoring.answers import ImageAnswers, read_answers
from unigap.scoring.compbench import score_compbench
from unigap.scoring.dsg import score_dpg_as_published, score_dsg
from unigap.scoring.geneval import score_geneval
from unigap.scoring.tally import by_tag, mean, mean_of_tags
from unigap.storage.manifest import write_durable


def score_benchmark(benchmark: str, prompts: str, answers: str, out: str | None) -> None:
    """Prints the table of a benchmark, and writes its figures as JSON where asked.

    Args:
        benchmark: ``geneval``, ``compbench``, ``dsg``, or ``dpg-as-published``.
        prompts: Source of the prompts with their truth.
        answers: JSONL file of detections or answers.
        out: The JSON file.
    """
    if out and (Path(out).is_dir() or not Path(out).parent.is_dir()):
        raise ValueError(f"--out {out!r} is no file in a folder that exists; give the name of a JSON file")
    asked = read_prompts(prompts)
    images = read_answers(answers, asked)
    figures = _figures(benchmark, images, asked[0].id)
    answered = len({image.prompt.id for image in images})
    print(f"{benchmark}: {len(images)} images for {answered} of {len(asked)} prompts")
    table = Table("tag")
    table.add_column("score [95 % interval]", justify="right")
    for tag, estimate in figures.items():
        table.add_row(tag, str(estimate))
    Console().print(table)
    if out:
        rows = {tag: estimate.to_dict() for tag, estimate in figures.items()}
        write_durable(Path(out), json.dumps(rows, indent=1).encode())


def _figures(benchmark: str, images: Sequence[ImageAnswers], first: str) -> dict[str, Estimate]:
    if benchmark in ("geneval", "compbench"):
        scores = (score_geneval if benchmark == "geneval" else score_compbench)(images)
        return {**by_tag(scores), "mean of tags": mean_of_tags(scores)}
    scores, kinds = score_dsg(images) if benchmark == "dsg" else score_dpg_as_published(images, first)
    if not scores:
        raise ValueError("the published program leaves out every image that was given; answer other prompts too")
    questions = {f"questions: {kind}": estimate for kind, estimate in by_tag(kinds).items()}
    return {**by_tag(scores), **questions, "mean of images": mean(scores)}
