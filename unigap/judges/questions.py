"""Questions about the parts of a prompt, and how their answers combine into one verdict."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from unigap.judges.described import Described
from unigap.records import Prompt

CACHED_PROMPTS = 16_384
"""Most prompts whose questions are cached: a prompt recurs with each of its candidates."""


@dataclass(frozen=True)
class Question:
    """A yes/no question about an image; yes is right if the image shows this part of the prompt.

    Attributes:
        id: Name, unique among the questions of a prompt.
        text: The question.
        parents: Ids of questions that must be answered yes for this one to be meaningful, e.g. "is there a ball?" for
            "is the ball red?".
    """

    id: str
    text: str
    parents: tuple[str, ...] = ()


class QuestionSource(Described, ABC):
    """Splits a prompt into questions."""

    @abstractmethod
    def questions(self, prompt: Prompt) -> tuple[Question, ...]:
        """Return the questions of a prompt, at least one.

        Raises:
            ValueError: There are no questions for this prompt.
        """


def with_sound_parents(questions: Iterable[Question]) -> tuple[Question, ...]:
    """Drop the parents that cannot be used: those that are no question of the prompt, and those in a cycle."""
    by_id = {question.id: question for question in questions}
    ancestors = {name: _ancestors(name, by_id) for name in by_id}

    def sound(question: Question) -> tuple[str, ...]:
        return tuple(name for name in question.parents if name in by_id and question.id not in ancestors[name])

    return tuple(replace(question, parents=sound(question)) for question in by_id.values())


def _ancestors(name: str, by_id: Mapping[str, Question]) -> set[str]:
    """Return all questions that one depends on, directly or not; in a cycle, itself included."""
    found: set[str] = set()
    queue = [name]
    while queue:
        new = {parent for parent in by_id[queue.pop()].parents if parent in by_id} - found
        found |= new
        queue += new
    return found


def mean_holds(questions: Sequence[Question], logit_Q: Sequence[float]) -> float:
    """Return the expected share of the parts of a prompt that an image shows, in [0, 1].

    The mean probability of yes of all questions. A question counts 0 if one of its parents was answered no or counts 0.

    Args:
        questions: The questions of one prompt, with usable parents only, see ``with_sound_parents``.
        logit_Q: Log-odds of yes of each question.
    """
    kept = _kept(questions, logit_Q)
    return sum((1 + math.tanh(logit / 2)) / 2 for logit in kept.values()) / len(questions)


def all_hold(questions: Sequence[Question], logit_Q: Sequence[float]) -> float:
    """Return log-odds that every question is answered yes: the lowest log-odds of all questions.

    Answers about one image are strongly correlated. So the minimum, an upper bound, is used and not the product, which
    would penalise prompts with many parts. A question is left out if one of its parents was answered no or left out:
    its answer would be about something that is not there, and the parent's no already decides the verdict.

    Args:
        questions: The questions of one prompt, with usable parents only, see ``with_sound_parents``.
        logit_Q: Log-odds of yes of each question.
    """
    return min(_kept(questions, logit_Q).values())


def _kept(questions: Sequence[Question], logit_Q: Sequence[float]) -> dict[Question, float]:
    """Return the log-odds of the questions with no parent that was answered no or left out."""
    failed = {question.id for question, logit in zip(questions, logit_Q, strict=True) if logit < 0}
    logits = dict(zip(questions, logit_Q, strict=True))
    while True:
        kept = {question: logit for question, logit in logits.items() if failed.isdisjoint(question.parents)}
        if len(kept) == len(logits):
            return kept
        failed |= {question.id for question in logits.keys() - kept.keys()}
        logits = kept
