"""A quiz in the style of POPE about renders of the embedded world."""

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
"""A popular or adversarial object is sampled from this many candidates of highest rank."""


class ShapesQuiz(QuizSource):
    """Renders of the embedded world, with POPE's three settings of absent objects.

    A description in this world names all objects of an image, so "a red circle" cannot be asked about one object of
    several. Each question therefore describes the whole image. For a "no", one object is replaced by an absent one (a
    shape in a colour): sampled uniformly, from the most frequent ones in the split, or from those that occur most
    often together with the objects in the image.

    Args:
        split: Split of the rendered prompts; use one that no model trains on.
        pictures: Number of images, >= 1; each has four questions.
        seed: Seed of the images; null follows the run's seed.
    """

    def __init__(self, split: str = "validation", pictures: int = 100, seed: int | None = None) -> None:
        if pictures < 1:
            raise ValueError(f"pictures must be >= 1, got {pictures}")
        self.split, self.pictures, self.seed = split, pictures, seed_of_part("quiz", seed)

    def load(self) -> Quiz:
        """Render the images and write their questions."""
        rng = random.Random(f"quiz/{self.split}/{self.seed}")
        tiers = [descriptions("color", difficulty, self.split) for difficulty in DIFFICULTIES]
        absent = _Absent(list(itertools.chain(*tiers)))
        images, questions, truth = [], [], []
        for _ in range(self.pictures):
            described = rng.choice(rng.choice(tiers))
            images.append(render(imagine(described, rng)))
            group = rng.randrange(len(described.groups))
            claims = [described, *(_with(described, group, thing) for thing in absent.of(described, rng))]
            questions += [QUESTION.replace("{prompt}", claim.text) for claim in claims]
            truth += [True, False, False, False]
        number_Q = torch.arange(len(questions))
        per_image = 1 + len(NEGATIVES)
        settings = {
            name: number_Q[(number_Q % per_image == 0) | (number_Q % per_image == kind)]
            for kind, name in enumerate(NEGATIVES, 1)
        }
        return Quiz(torch.stack(images), number_Q // per_image, tuple(questions), torch.tensor(truth), settings)


class _Absent:
    """Choose absent objects by frequency and co-occurrence."""

    def __init__(self, described: Sequence[Description]) -> None:
        contents = [sorted(set(description.things)) for description in described]
        self.frequency = Counter(itertools.chain(*contents))
        self.together = Counter(pair for things in contents for pair in itertools.permutations(things, 2))

    def of(self, description: Description, rng: random.Random) -> list[Thing]:
        """Return one object that is not in the description for each of ``NEGATIVES``."""
        present = set(description.things)
        kinds = [Thing(shape, color) for shape, color in itertools.product(SHAPES, COLORS)]
        absent = [thing for thing in kinds if thing not in present]
        near = {thing: sum(self.together[thing, other] for other in present) for thing in absent}
        popular = sorted(absent, key=lambda thing: -self.frequency[thing])[:AMONG]
        adversarial = sorted(absent, key=lambda thing: -near[thing])[:AMONG]
        return [rng.choice(absent), rng.choice(popular), rng.choice(adversarial)]


def _with(description: Description, group: int, thing: Thing) -> Description:
    groups = list(description.groups)
    groups[group] = (1, thing)
    return replace(description, groups=tuple(groups))
