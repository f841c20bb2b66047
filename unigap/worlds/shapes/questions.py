"""Questions that a prompt of the embedded world is split into."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache

from unigap.judges.questions import CACHED_PROMPTS, Question, QuestionSource
from unigap.judges.self_judge import QUESTION
from unigap.records import Prompt
from unigap.worlds.shapes.grammar import RELATIONS, Description, parse


class GrammarQuestions(QuestionSource):
    """Ask about a prompt of the embedded world and about each weaker description that it implies.

    A description in this world names all objects of an image, so "a red circle" is false when there is a second
    object and cannot be asked about a part of an image. The weaker descriptions are of the whole image: one attribute
    left open, or the relation stated from its other side. The embedded models are pretrained on such wordings. The
    prompt itself is one of the questions, because no weaker description binds all attributes to their objects.
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
    """Yield the descriptions that this one implies: each attribute left open in turn, and the mirrored relation."""
    groups = description.groups
    for i, (count, thing) in enumerate(groups):
        for attribute in ("color", "size"):
            if getattr(thing, attribute):
                weaker = (count, replace(thing, **{attribute: ""}))
                yield replace(description, groups=(*groups[:i], weaker, *groups[i + 1 :]))
    if description.relation:
        yield Description(groups[::-1], RELATIONS[description.relation])
