"""Sharing out a budget of images: never more than there is, and no more to whom has enough."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_runs import FICKLE, epochs, improve

from unigap.loop.allocation import FixedCandidates, Tally, UntilAccepted, Wave
from unigap.pool import Pool


def play(rule: UntilAccepted, rates: list[float], candidates: int, coins: Any) -> list[Tally]:
    """A whole round against a judge that accepts each prompt's images at a rate of its own."""
    tallies = [Tally()] * len(rates)
    for _ in range(10_000):
        wave = rule.next_wave(tallies, candidates)
        if wave is None:
            return tallies
        assert wave.prompts and list(wave.prompts) == sorted(set(wave.prompts)) and wave.images == rule.wave
        for place in wave.prompts:
            before = tallies[place]
            assert before.drawn == wave.first and before.accepted < rule.enough
            logits = [rates[place] - coins.random() for _ in range(wave.images)]
            tallies[place] = before.after(logits, 0.0)
    raise AssertionError("the round never ends")


@settings(max_examples=60)
@given(
    st.lists(st.sampled_from([0.0, 0.05, 0.5, 1.0]), min_size=1, max_size=30),
    st.integers(1, 8),
    st.integers(1, 4),
    st.integers(1, 8),
    st.integers(0, 20),
    st.randoms(use_true_random=False),
)
def test_a_round_ends_within_its_budget_and_leaves_nothing_useful_undone(
    rates: list[float], candidates: int, enough: int, wave: int, more: int, coins: Any
) -> None:
    rule = UntilAccepted(enough, wave, wave + more)
    if wave > candidates:
        with pytest.raises(ValueError, match="do not fit a budget"):
            play(rule, rates, candidates, coins)
        return
    tallies = play(rule, rates, candidates, coins)
    left = candidates * len(rates) - sum(tally.drawn for tally in tallies)
    assert left >= 0
    for tally in tallies:
        assert wave <= tally.drawn <= rule.most and tally.drawn % wave == 0
        assert tally.accepted >= enough or tally.drawn + wave > rule.most or left < wave


def test_what_easy_prompts_save_goes_to_the_hard_ones() -> None:
    rates = [1.0] * 15 + [0.1] * 5
    fixed = FixedCandidates().next_wave([Tally()] * 20, 4)
    assert fixed == Wave(tuple(range(20)), 0, 4)
    tallies = play(UntilAccepted(enough=1, wave=1, most=64), rates, 4, random.Random(0))
    assert [tally.drawn for tally in tallies[:15]] == [1] * 15
    assert sum(tally.drawn for tally in tallies[15:]) > 5 * 4 and sum(tally.drawn for tally in tallies) <= 20 * 4


@pytest.mark.parametrize(("left", "expected"), [(0, None), (1, (2,)), (2, (2, 3)), (3, (1, 2, 3)), (9, (1, 2, 3))])
def test_the_last_of_a_budget_goes_to_whom_the_judge_came_closest_to_accepting(
    left: int, expected: tuple[int, ...] | None
) -> None:
    solved, far, close, between = Tally(1, 1, 3.0), Tally(2, 0, -4.0), Tally(2, 0, -0.5), Tally(2, 0, -2.0)
    # each that is solved spent one of its two images
    tallies = [solved, far, close, between, *[solved] * (left - 1)] if left else [far, close, between]
    wave = UntilAccepted(enough=1, wave=1, most=9).next_wave(tallies, 2)
    assert (wave and (wave.prompts, wave.first)) == (expected and (expected, 2))


def test_whoever_has_none_comes_before_whoever_has_one() -> None:
    tallies = [Tally(4, 1, 9.0), Tally(4, 0, -4.0), *[Tally(2, 2, 5.0)] * 4]
    assert UntilAccepted(enough=2, wave=2).next_wave(tallies, 3) == Wave((1,), 4, 2)


def test_fixed_candidates_are_drawn_once() -> None:
    rule = FixedCandidates()
    assert rule.next_wave([Tally(3, 0, -1.0)] * 2, 3) is None and rule.next_wave([], 3) is None
    assert rule.recipe(0.5) == {}


@pytest.mark.parametrize(
    ("options", "told"),
    [({"enough": 0}, "enough must be >= 1"), ({"wave": 0}, "wave must be >= 1"), ({"wave": 4, "most": 3}, "most must")],
)
def test_rules_without_sense_are_refused(options: dict[str, int], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        UntilAccepted(**options)


def test_a_budgeted_run_spends_unevenly_within_its_budget_and_trains_on_what_was_accepted(
    janus_folder: Path, here: Path
) -> None:
    flags = {**FICKLE, "regrow.plan.candidates": 4, "regrow.allocation.init_args.enough": 1}
    assert improve(janus_folder, "budgeted", flags) == 0
    pool = Pool.open(here / "runs/budgeted/pool")
    assert pool.verify() == []
    logits = pool.logits("random")
    spread = []
    for round, asked in pool.prompts().items():
        drawn = [c for c in pool.candidates() if c.round == round]
        numbers = [sum(c.prompt == prompt for c in drawn) for prompt in asked]
        assert set(numbers) <= set(range(2, 65, 2)) and sum(numbers) <= 4 * len(asked)
        assert pool.recipe(round)["allocation"]["threshold"] == 0.5
        spread.append(len(set(numbers)))
    assert spread[0] > 1 < len(spread)
    trained = {row for rows in epochs(here / "runs/budgeted") for row in rows}
    assert trained and all(logits[row] >= 0 for row in trained)
