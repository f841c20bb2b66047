"""``unigap score``: scores of a published benchmark from detections or answers, in one table."""

from __future__ import annotations

from unigap.cli.commands.score_table import print_scores
from unigap.console.closing import close
from unigap.evaluation.scoring.answers import read_answers
from unigap.evaluation.scoring.benchmarks import RULES
from unigap.files.outputs import check_figures, write_figures
from unigap.prompt_sets.loading import read_prompts


def score_geneval(*, prompts: str, answers: str, out: str = "") -> None:
    """Compute GenEval's score from detections: objects, counts, colours, positions, and the mean of the tags.

    Args:
        prompts: Source of the prompts, e.g. ``geneval:evaluation_metadata.jsonl``.
        answers: JSONL file with one line for each image: its prompt's ``id`` and the ``objects`` detected in it.
        out: JSON file for the figures. Default: write none.
    """
    _score("geneval", prompts, answers, out)


def score_compbench(*, prompts: str, answers: str, out: str = "") -> None:
    """Compute T2I-CompBench++'s scores by category from detections and answers.

    Args:
        prompts: Source of the prompts, e.g. ``t2i-compbench:FOLDER``.
        answers: JSONL file with one line for each image: its prompt's ``id`` and what the rule of its category needs.
        out: JSON file for the figures. Default: write none.
    """
    _score("compbench", prompts, answers, out)


def score_dsg(*, prompts: str, answers: str, out: str = "", as_published_dpg: bool = False) -> None:
    """Compute the score of DSG or DPG-Bench from answers to yes/no questions; a question counts 0 if its parent does.

    Args:
        prompts: Source of the prompts, e.g. ``dsg:dsg-1k-anns.csv`` or ``dpg:dpg_bench.csv``.
        answers: JSONL file with one line for each image: its prompt's ``id`` and the ``answers`` by question number.
        out: JSON file for the figures. Default: write none.
        as_published_dpg: Reproduce the faults of DPG-Bench's program, to compare with published figures.
    """
    _score("dpg-as-published" if as_published_dpg else "dsg", prompts, answers, out)


def score_tifa(*, prompts: str, answers: str, out: str = "") -> None:
    """Compute TIFA's score from answers to multiple-choice questions.

    Args:
        prompts: Source of the prompts, e.g. ``tifa:tifa_v1.0_question_answers.json``.
        answers: JSONL file with one line for each image: its prompt's ``id`` and the ``answers`` by question number.
        out: JSON file for the figures. Default: write none.
    """
    _score("tifa", prompts, answers, out)


def score_wise(*, prompts: str, answers: str, out: str = "") -> None:
    """Compute WISE's WiScore from ratings.

    Args:
        prompts: Source of the prompts, e.g. ``wise:FOLDER``.
        answers: JSONL file with one line for each image: its prompt's ``id`` and the ``ratings``.
        out: JSON file for the figures. Default: write none.
    """
    _score("wise", prompts, answers, out)


def _score(benchmark: str, source: str, answers: str, out: str) -> None:
    """Print the table of a benchmark, and write its figures as JSON if ``out`` is not empty."""
    if out:
        check_figures(out)
    prompts = read_prompts(source)
    images = read_answers(answers, prompts)
    figures = RULES[benchmark](images, prompts).figures
    if out:  # before printing, so that a closed pipe loses nothing
        write_figures(out, {tag: estimate.to_dict() for tag, estimate in figures.items()})
    answered = len({image.prompt.id for image in images})
    print(f"{benchmark}: {len(images)} images for {answered} of {len(prompts)} prompts")
    print_scores(figures)
    if out:
        close({"figures": out}, "compare them with figures of other checkpoints on the same prompts")
    else:
        close({}, "add --out FILE.json to keep these figures")
