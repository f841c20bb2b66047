"""The questions a prompt falls into, and what their answers say of the whole."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from unigap.judges.described import Described
from unigap.records import Prompt

REMEMBERED = 16_384
"""Most prompts whose questions are kept: a prompt comes back with each of its candidates."""


@dataclass(frozen=True)
class Question:
    """A yes/no question about a picture, to which yes is right where the picture shows what was asked.

    Attributes:
        id: Its name, unique among the questions of a prompt.
        text: What is asked.
        parents: Questions without whose yes this one means nothing: the colour of what is not there.
    """

    id: str
    text: str
    parents: tuple[str, ...] = ()


class QuestionSource(Described, ABC):
    """Knows which questions a prompt falls into."""

    @abstractmethod
    def questions(self, prompt: Prompt) -> tuple[Question, ...]:
        """The questions of a prompt, at least one.

        Raises:
            ValueError: There are none for it.
        """


def with_sound_parents(questions: Iterable[Question]) -> tuple[Question, ...]:
    """The questions of a prompt, without the parents that mean nothing.

    A parent must be one of the questions, and must not depend in turn, at any remove, on the question whose parent it
    is: of a circle, no question could be asked before the others.
    """
    named = {question.id: question for question in questions}
    above = {name: _above(name, named) for name in named}

    def sound(question: Question) -> tuple[str, ...]:
        return tuple(name for name in question.parents if name in named and question.id not in above[name])

    return tuple(replace(question, parents=sound(question)) for question in named.values())


def _above(name: str, named: Mapping[str, Question]) -> set[str]:
    """Every question that one depends on, at any remove; in a circle, itself too."""
    found: set[str] = set()
    ahead = [name]
    while ahead:
        fresh = {parent for parent in named[ahead.pop()].parents if parent in named} - found
        found |= fresh
        ahead += fresh
    return found


def all_hold(questions: Sequence[Question], logit_Q: Sequence[float]) -> float:
    """Log-odds that every question is answered yes: those of the question whose yes is least sure.

    Questions about one picture stand or fall together far more than they vary on their own, so the least sure one
    bounds the whole, where a product would punish a prompt for having many parts. A question one of whose parents was
    answered no is left out, and so is what depends on it: what a model says of something that is not there means
    nothing, and the parent has already said no.

    Args:
        questions: The questions of one prompt, their parents sound, see ``with_sound_parents``.
        logit_Q: Log-odds of yes of each.
    """
    void = {question.id for question, logit in zip(questions, logit_Q, strict=True) if logit < 0}
    asked = dict(zip(questions, logit_Q, strict=True))
    while True:
        kept = {question: logit for question, logit in asked.items() if void.isdisjoint(question.parents)}
        if len(kept) == len(asked):
            return min(kept.values())
        void |= {question.id for question in asked.keys() - kept.keys()}
        asked = kept
