"""The questions that prompts of the embedded world fall into."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache

from unigap.judges.questions import CACHED_PROMPTS, Question, QuestionSource
from unigap.judges.self_judge import QUESTION
from unigap.records import Prompt
from unigap.worlds.shapes.grammar import RELATIONS, Description, parse


class GrammarQuestions(QuestionSource):
    """A prompt of the embedded world, and what follows from it: one question for each attribute and relation.

    A description in this world is true of exactly its objects, so "a red circle" is false beside a second object, and
    cannot be asked about a part of a picture. What follows from a prompt are weaker descriptions of the whole picture:
    with one attribute left open, or the relation told from its other side. The model was pretrained on such wordings.
    The prompt itself is among the questions, because its parts do not say what belongs to what.
    """

    @property
    def name(self) -> str:
        return "grammar"

    def questions(self, prompt: Prompt) -> tuple[Question, ...]:
        return _grammar_questions(prompt.text)


@lru_cache(CACHED_PROMPTS)
def _grammar_questions(text: str) -> tuple[Question, ...]:
    wordings = dict.fromkeys([text, *(weaker.text for weaker in implied(parse(text)))])
    return tuple(Question(wording, QUESTION.replace("{prompt}", wording)) for wording in wordings)


def implied(description: Description) -> Iterator[Description]:
    """What is true wherever ``description`` is: each attribute left open in turn, and the relation turned round."""
    groups = description.groups
    for i, (count, thing) in enumerate(groups):
        for attribute in ("color", "size"):
            if getattr(thing, attribute):
                weaker = (count, replace(thing, **{attribute: ""}))
                yield replace(description, groups=(*groups[:i], weaker, *groups[i + 1 :]))
    if description.relation:
        yield Description(groups[::-1], RELATIONS[description.relation])
