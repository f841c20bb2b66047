"""What the policy that acted thought of its samples: log-probabilities under the recipe they were sampled with."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import numpy as np

from unigap.loop.selection import Selection
from unigap.models.base import SamplingRecipe
from unigap.pool import Pool


def with_behaviour(pool: Pool, selection: Selection, rounds: Iterable[int], recipe: SamplingRecipe) -> Selection:
    """Return a selection whose candidates of some rounds have ``behaviour_M``.

    Args:
        pool: The pool.
        selection: The judged candidates.
        rounds: Numbers of the rounds.
        recipe: The recipe that the objective takes the candidates to be sampled with.

    Raises:
        ValueError: A round was sampled with another recipe, or does not store the log-probabilities.
    """
    acted: dict[str, np.ndarray] = {}
    for number in rounds:
        _check_recipe(pool, number, recipe)
        acted |= pool.behaviours(number)
    candidates = [
        dataclasses.replace(candidate, behaviour_M=acted[candidate.id]) if candidate.id in acted else candidate
        for candidate in selection.candidates
    ]
    return dataclasses.replace(selection, candidates=candidates)


def _check_recipe(pool: Pool, number: int, recipe: SamplingRecipe) -> None:
    stored = pool.recipe(number).get("sampling", {})
    for name, value in dataclasses.asdict(recipe).items():
        if stored.get(name) != value:
            raise ValueError(
                f"round {number} of pool {pool.folder} was sampled with {name} {stored.get(name)} and not {value}; set "
                f"regrow.plan.sampling.{name} to that, or use a new pool folder"
            )
