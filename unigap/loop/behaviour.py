"""What the policy that acted thought of its samples: log-probabilities under the recipe they were sampled with."""

from __future__ import annotations

import dataclasses

from unigap.loop.selection import Selection
from unigap.models.base import SamplingRecipe
from unigap.pool import Pool
from unigap.pool.candidates import Candidates


def with_behaviour(pool: Pool, selection: Selection, rounds: range, recipe: SamplingRecipe) -> Selection:
    """Return a selection whose candidates of some rounds have ``behaviour_M``, which is read when it is used.

    Args:
        pool: The pool.
        selection: The judged candidates of the pool.
        rounds: Numbers of the rounds, up to the last one.
        recipe: The recipe that the objective takes the candidates to be sampled with.

    Raises:
        ValueError: A round was sampled with another recipe, or does not store the log-probabilities.
    """
    for number in rounds:
        _check_recipe(pool, number, recipe)
        pool.check_behaviour(number)
    assert isinstance(selection.candidates, Candidates)
    return dataclasses.replace(selection, candidates=selection.candidates.with_behaviour(rounds.start))


def _check_recipe(pool: Pool, number: int, recipe: SamplingRecipe) -> None:
    stored = pool.recipe(number).get("sampling", {})
    for name, value in dataclasses.asdict(recipe).items():
        if stored.get(name) != value:
            raise ValueError(
                f"round {number} of pool {pool.folder} was sampled with {name} {stored.get(name)} and not {value}; set "
                f"regrow.plan.sampling.{name} to that, or use a new pool folder"
            )
