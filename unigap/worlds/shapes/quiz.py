"""POPE's questions about renders of the embedded world."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import torch

from unigap.evaluation.quizzes import Quiz, QuizSource
from unigap.judges.self_judge import QUESTION
from unigap.seeds import seed_of_part
from unigap.worlds.shapes.grammar import COLORS, DIFFICULTIES, SHAPES, Description, Thing
from unigap.worlds.shapes.prompt_sets import descriptions
from unigap.worlds.shapes.scenes import imagine, render

NEGATIVES = ("random", "popular", "adversarial")
AMONG = 3
"""A popular or adversarial object is one of the first so many."""


class ShapesQuiz(QuizSource):
    """Renders of the embedded world, with POPE's three settings of absent objects.

    A description in this world is true of exactly its objects, so "a red circle" cannot be asked about one object of
    several. The question names the whole picture instead, with the object that is there or, for a no, an absent one
    (a shape in a colour) in its place: drawn at random, from the most frequent in the split, or from those that stand
    most often beside what is in the picture.

    Args:
        split: Split of the prompts that are rendered; not one that is trained on.
        pictures: How many; each is asked about four times.
        seed: Which pictures; null follows the run's seed.
    """

    def __init__(self, split: str = "validation", pictures: int = 100, seed: int | None = None) -> None:
        if pictures < 1:
            raise ValueError(f"pictures must be >= 1, got {pictures}")
        self.split, self.pictures, self.seed = split, pictures, seed_of_part("quiz", seed)

    def load(self) -> Quiz:
        """Renders and questions."""
        rng = random.Random(f"quiz/{self.split}/{self.seed}")
        tiers = [descriptions("color", difficulty, self.split) for difficulty in DIFFICULTIES]
        absent = _Absent(list(itertools.chain(*tiers)))
        images, questions, truth = [], [], []
        for _ in range(self.pictures):
            described = rng.choice(rng.choice(tiers))
            images.append(render(imagine(described, rng)))
            place = rng.randrange(len(described.groups))
            claims = [described, *(_with(described, place, thing) for thing in absent.of(described, rng))]
            questions += [QUESTION.replace("{prompt}", claim.text) for claim in claims]
            truth += [True, False, False, False]
        number_Q = torch.arange(len(questions))
        asked = 1 + len(NEGATIVES)
        settings = {
            name: number_Q[(number_Q % asked == 0) | (number_Q % asked == kind)]
            for kind, name in enumerate(NEGATIVES, 1)
        }
        return Quiz(torch.stack(images), number_Q // asked, tuple(questions), torch.tensor(truth), settings)


class _Absent:
    """Knows which objects are frequent, and which stand beside which."""

    def __init__(self, described: Sequence[Description]) -> None:
        together = [sorted(set(description.things)) for description in described]
        self.seen = Counter(itertools.chain(*together))
        self.beside = Counter(pair for things in together for pair in itertools.permutations(things, 2))

    def of(self, description: Description, rng: random.Random) -> list[Thing]:
        """One object that is not there for each of ``NEGATIVES``."""
        present = set(description.things)
        kinds = [Thing(shape, color) for shape, color in itertools.product(SHAPES, COLORS)]
        absent = [thing for thing in kinds if thing not in present]
        near = {thing: sum(self.beside[thing, other] for other in present) for thing in absent}
        popular = sorted(absent, key=lambda thing: -self.seen[thing])[:AMONG]
        adversarial = sorted(absent, key=lambda thing: -near[thing])[:AMONG]
        return [rng.choice(absent), rng.choice(popular), rng.choice(adversarial)]


def _with(description: Description, place: int, thing: Thing) -> Description:
    groups = list(description.groups)
    groups[place] = (1, thing)
    return replace(description, groups=tuple(groups))
