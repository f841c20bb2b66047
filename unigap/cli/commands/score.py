"""``unigap score``: figures of a published benchmark from detections or answers, in one table."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from unigap.evaluation.scoring.answers import ImageAnswers, read_answers
from unigap.evaluation.scoring.compbench import score_compbench
from unigap.evaluation.scoring.dsg import score_dpg_as_published, score_dsg
from unigap.evaluation.scoring.geneval import score_geneval
from unigap.evaluation.scoring.tally import by_tag, mean, mean_of_tags
from unigap.files.outputs import check_figures, write_figures
from unigap.metrics.intervals import Estimate
from unigap.prompt_sets.loading import read_prompts


def score_benchmark(benchmark: str, prompts: str, answers: str, out: str) -> None:
    """Prints the table of a benchmark, and writes its figures as JSON where asked.

    Args:
        benchmark: ``geneval``, ``compbench``, ``dsg``, or ``dpg-as-published``.
        prompts: Source of the prompts with their truth.
        answers: JSONL file of detections or answers.
        out: The JSON file; ``""`` writes none.
    """
    if out:
        check_figures(out)
    asked = read_prompts(prompts)
    images = read_answers(answers, asked)
    figures = _figures(benchmark, images, asked[0].id)
    if out:  # before they are printed, so that a closed pipe loses nothing
        write_figures(out, {tag: estimate.to_dict() for tag, estimate in figures.items()})
    answered = len({image.prompt.id for image in images})
    print(f"{benchmark}: {len(images)} images for {answered} of {len(asked)} prompts")
    table = Table("tag")
    table.add_column("score [95 % interval]", justify="right")
    for tag, estimate in figures.items():
        table.add_row(tag, str(estimate))
    Console(markup=False).print(table)


def _figures(benchmark: str, images: Sequence[ImageAnswers], first: str) -> dict[str, Estimate]:
    if benchmark in ("geneval", "compbench"):
        scores = (score_geneval if benchmark == "geneval" else score_compbench)(images)
        return {**by_tag(scores), "mean of tags": mean_of_tags(scores)}
    scores, kinds = score_dsg(images) if benchmark == "dsg" else score_dpg_as_published(images, first)
    if not scores:
        raise ValueError("the published program leaves out every image that was given; answer other prompts too")
    questions = {f"questions: {kind}": estimate for kind, estimate in by_tag(kinds).items()}
    return {**by_tag(scores), **questions, "mean of images": mean(scores)}
