"""Hard negatives in the language of the embedded world."""

from __future__ import annotations

import random

from unigap.objectives.negatives import Negatives
from unigap.worlds.shapes.grammar import parse
from unigap.worlds.shapes.lessons import twist


class ShapesNegatives(Negatives):
    """Change one attribute, count or relation of a prompt of the embedded world."""

    def alter(self, text: str, rng: random.Random) -> str | None:
        """Return a hard negative; every prompt has one."""
        return twist(parse(text), rng).text
