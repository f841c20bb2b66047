"""Yes or no in what a chat model replies: log-odds of its first token, or of the answers that it gave."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

LEAST = 1e-9
"""Least probability that an answer is given, so that log-odds stay finite; servers round below it."""
WORD = re.compile(r"[^\W_]+")
SPACE_MARKS = "\u0120\u010a"
"""Letters that byte-level tokenizers write for a space and a line break."""


@dataclass(frozen=True)
class YesNo:
    """An answer to a yes-no question.

    Attributes:
        logit: Log-odds of yes, finite.
        mass: Probability of yes or no, in [0, 1].
    """

    logit: float
    mass: float


def from_log_probs(top: Sequence[tuple[str, float]]) -> YesNo:
    """Return the log-odds of yes against no as the first token, summed over all spellings of each.

    Servers list only the most likely tokens. A missing answer counts with the highest probability that it can have:
    that of the last token listed, or what the listed ones leave over. If both are missing, the log-odds are those of
    yes against every other token, which is a no.

    Args:
        top: The most likely first tokens and their log-probabilities, in nats, at temperature 1.
    """
    probability = {"yes": 0.0, "no": 0.0}
    for token, logp in top:
        # a token such as "yes," or "**No" begins the same answer
        word = "".join(WORD.findall(token.lstrip(SPACE_MARKS))).casefold()
        if word in probability:
            probability[word] += math.exp(logp)
    listed = [math.exp(logp) for _, logp in top]
    unlisted = max(LEAST, min([*listed, 1 - sum(listed)])) if listed else LEAST
    mass = min(1.0, sum(probability.values()))
    yes = probability["yes"] or unlisted
    no = probability["no"] or (unlisted if probability["yes"] else max(LEAST, 1 - yes))
    return YesNo(math.log(max(yes, LEAST)) - math.log(max(no, LEAST)), mass)


def from_answers(texts: Sequence[str]) -> YesNo:
    """Return the log-odds of yes from several sampled answers, smoothed as by one more yes and one more no.

    If ``k`` of ``n`` answers begin with yes: log((k + 1) / (n - k + 1)). An answer that is neither counts as a no.

    Args:
        texts: The answers, an odd number of them, so that none is undecided.
    """
    words = [first_word(text) for text in texts]
    yes = words.count("yes")
    return YesNo(math.log((yes + 1) / (len(texts) - yes + 1)), (yes + words.count("no")) / len(texts))


def first_word(text: str) -> str:
    """Return the first word of a text in small letters; empty if there is none.

    >>> first_word("**Yes**, it does."), first_word(" no"), first_word("...")
    ('yes', 'no', '')
    """
    found = WORD.search(text)
    return found[0].casefold() if found else ""
