"""TIFA's rule (arXiv 2303.11897): the share of a caption's multiple-choice questions that are answered right."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from unigap.evaluation.scoring.answers import ImageAnswers, Score


def score_tifa(images: Sequence[ImageAnswers]) -> tuple[list[Score], list[Score]]:
    """Score each image, and each question about it.

    Returns:
        For each image the share of its questions that were answered right, tagged with the caption's source; and the
        questions, 1 or 0, tagged with the kind of element, e.g. ``"color"``.

    Raises:
        ValueError: A caption has no questions, or a question has no answer.
    """
    scores, kinds = [], []
    for image in images:
        questions = tifa_questions(image.truth, image.prompt.id)
        right = [float(_answer(image, number) == question["answer"]) for number, question in enumerate(questions, 1)]
        scores.append(Score(image.cluster, image.prompt.category, sum(right) / len(right)))
        rows = zip(questions, right, strict=True)
        kinds += [Score(image.cluster, question["element_type"], value) for question, value in rows]
    return scores, kinds


def tifa_questions(truth: dict[str, Any], prompt: str) -> list[dict[str, Any]]:
    """Return the questions of a caption, in their order.

    Args:
        truth: Its structured truth.
        prompt: Its id, for the message.

    Raises:
        ValueError: There are none.
    """
    questions: list[dict[str, Any]] = truth.get("questions", [])
    if not questions or "choices" not in questions[0]:
        raise ValueError(
            f"prompt {prompt!r} has no TIFA questions; give --prompts tifa:tifa_v1.0_question_answers.json"
        )
    return questions


def _answer(image: ImageAnswers, number: int) -> str:
    given = image.row.get("answers")
    if not isinstance(given, dict) or not isinstance(given.get(str(number)), str):
        raise ValueError(f"{image.where}: question {number} of {image.prompt.id!r} has no answer; give a choice")
    return str(given[str(number)])
