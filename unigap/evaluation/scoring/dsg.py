"""DSG's dependency rule (arXiv 2310.18235), and DPG-Bench's published program (arXiv 2403.05135) with its errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from unigap.evaluation.scoring.answers import ImageAnswers, Score

Parents = Mapping[int, Sequence[int]]
"""The questions that each question depends on, by question number, in the order of the questions."""


def valid_scores(yes: Mapping[int, bool], parents: Parents) -> dict[int, float]:
    """Return 1 for each question answered yes, or 0 if it or one of its parents was answered no.

    Only the parents' own answers count, not those of their parents, as in the authors' program. A parent that is not
    among the answers does not count as a no.

    Args:
        yes: Whether each question was answered yes.
        parents: The parents of each question.

    >>> valid_scores({1: False, 2: True, 3: True}, {1: [], 2: [1], 3: [2]})
    {1: 0.0, 2: 0.0, 3: 1.0}
    """
    return {name: float(yes[name] and all(yes.get(parent, True) for parent in parents[name])) for name in yes}


def dpg_scores(yes: Mapping[int, bool], parents: Parents) -> dict[int, float]:
    """Compute `valid_scores` as DPG-Bench's program does: in order, a question set to 0 counts as a no for later ones.

    Raises:
        KeyError: A parent is not among the answers.
    """
    scores = {name: float(answer) for name, answer in yes.items()}
    for name in yes:
        if any(scores[parent] == 0 for parent in parents[name]):
            scores[name] = 0.0
    return scores


def score_dsg(images: Sequence[ImageAnswers]) -> tuple[list[Score], list[Score]]:
    """Score each image, and each question about it.

    Returns:
        For each image the mean of its questions' `valid_scores`, tagged with the prompt's part of the set; and the
        scores of the questions, tagged with the kind of question, e.g. ``"attribute"``.

    Raises:
        ValueError: A prompt has no questions, or a question has no answer.
    """
    scores, kinds = [], []
    for image in images:
        questions = _questions(image)
        valid = valid_scores(_answers(image, questions), _parents(questions))
        scores.append(Score(image.cluster, image.prompt.category, sum(valid.values()) / len(valid)))
        kinds += [Score(image.cluster, item["category"], valid[item["id"]]) for item in questions]
    return scores, kinds


def score_dpg_as_published(images: Sequence[ImageAnswers], first: str) -> tuple[list[Score], list[Score]]:
    """Score as DPG-Bench's program does, for comparison with published figures only.

    The program skips the first row of the CSV, and every prompt with a question that depends on that row. It counts the
    kinds of questions from the last image of each prompt only, and from the answers before the dependency rule.

    Args:
        images: The answers, images of a prompt in the order sampled.
        first: Id of the first prompt of the CSV.

    Returns:
        As `score_dsg`.
    """
    scores, kinds = [], []
    last = {image.prompt.id: image for image in images}
    for image in images:
        questions = _questions(image)[1 if image.prompt.id == first else 0 :]
        yes, parents = _answers(image, questions), _parents(questions)
        if not yes or not all(parent in yes for listed in parents.values() for parent in listed):
            continue
        valid = dpg_scores(yes, parents)
        scores.append(Score(image.cluster, image.prompt.category, sum(valid.values()) / len(valid)))
        if image is last[image.prompt.id]:
            kinds += [Score(image.cluster, item["category"], float(yes[item["id"]])) for item in questions]
    return scores, kinds


def _questions(image: ImageAnswers) -> list[dict[str, Any]]:
    questions = image.truth.get("questions", [])
    if not questions or "parents" not in questions[0]:
        raise ValueError(f"prompt {image.prompt.id!r} has no DSG questions; give --prompts dsg:FILE.csv")
    return list(questions)


def _parents(questions: Sequence[Mapping[str, Any]]) -> dict[int, list[int]]:
    return {item["id"]: item["parents"] for item in questions}


def _answers(image: ImageAnswers, questions: Sequence[Mapping[str, Any]]) -> dict[int, bool]:
    given = image.row.get("answers")
    if not isinstance(given, dict):
        raise ValueError(f'{image.where}: needs \'answers\', an object such as {{"1": "yes", "2": "no"}}')
    for item in questions:
        if not isinstance(given.get(str(item["id"])), str):
            raise ValueError(
                f"{image.where}: question {item['id']} of {image.prompt.id!r} has no answer; give a string"
            )
    return {item["id"]: given[str(item["id"])].strip().lower() == "yes" for item in questions}
