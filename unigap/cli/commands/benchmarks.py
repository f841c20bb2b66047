"""The verbs about benchmarks: functions whose signatures are their options."""

from __future__ import annotations


def prompts_import(source: str, *, out: str = "", split: str | None = None) -> None:
    """Show what a prompt set holds, and make a file of it without what both its splits hold.

    Args:
        source: ``NAME:PATH``, e.g. ``geneval:evaluation_metadata.jsonl``, or a ``.txt`` or ``.jsonl`` file.
        out: New JSONL file for the prompts.
        split: Only this split.
    """
    from unigap.cli.commands.prompts import import_prompts

    import_prompts(source, out, split)


def prompts_audit(
    train: str,
    evaluation: str,
    *,
    out: str = "",
    near: float = 0.9,
    train_split: str = "improve",
    evaluation_split: str = "validation",
) -> None:
    """List the training prompts that are evaluated on, the same or nearly, and drop them.

    Args:
        train: Source of the training prompts.
        evaluation: Source of the prompts to evaluate on.
        out: New JSONL file for the training prompts that are not in the list, each text once.
        near: Share of six-letter runs two texts have in common that makes them nearly the same, in (0, 1].
        train_split: Split to train on.
        evaluation_split: Split to evaluate on.
    """
    from unigap.cli.commands.prompts import audit_prompts

    audit_prompts(train, evaluation, train_split, evaluation_split, near, out)


def score_geneval(*, prompts: str, answers: str, out: str = "") -> None:
    """GenEval's score from detections: objects, counts, colours, positions, and the mean of the tags.

    Args:
        prompts: Source of the prompts, e.g. ``geneval:evaluation_metadata.jsonl``.
        answers: JSONL file, for each image its prompt's ``id`` and the ``objects`` found in it.
        out: JSON file for the figures.
    """
    from unigap.cli.commands.score import score_benchmark

    score_benchmark("geneval", prompts, answers, out)


def score_compbench(*, prompts: str, answers: str, out: str = "") -> None:
    """T2I-CompBench++'s scores from detections and answers, by category.

    Args:
        prompts: Source of the prompts, e.g. ``t2i-compbench:FOLDER``.
        answers: JSONL file, for each image its prompt's ``id`` and what the rule of its category needs.
        out: JSON file for the figures.
    """
    from unigap.cli.commands.score import score_benchmark

    score_benchmark("compbench", prompts, answers, out)


def score_dsg(*, prompts: str, answers: str, out: str = "", as_published_dpg: bool = False) -> None:
    """DSG's and DPG-Bench's score from answers to yes/no questions; a child of a no counts 0.

    Args:
        prompts: Source of the prompts, e.g. ``dsg:dsg-1k-anns.csv`` or ``dpg:dpg_bench.csv``.
        answers: JSONL file, for each image its prompt's ``id`` and the ``answers`` by number of the question.
        out: JSON file for the figures.
        as_published_dpg: Repeat the faults of DPG-Bench's program, to compare with published figures.
    """
    from unigap.cli.commands.score import score_benchmark

    score_benchmark("dpg-as-published" if as_published_dpg else "dsg", prompts, answers, out)
