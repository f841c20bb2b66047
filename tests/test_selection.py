"""Selection against definitions that count instead of sorting, and the edges of the threshold."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import numpy as np
import pytest
import torch

from unigap.loop.selection import accepted_rows, balanced, discarded_prompts, preference_pairs, threshold_logit
from unigap.metrics.scores import says_yes
from unigap.records import Candidate, Judgment, Pair, Prompt

PROMPTS = [Prompt(f"p{i}", f"prompt {i}") for i in range(6)]
World = tuple[list[Candidate], dict[str, float]]


def candidate(prompt: Prompt, round: int, index: int) -> Candidate:
    return Candidate(prompt, round, index, 0, np.zeros(4, dtype=np.int32), -1.0)


def world(seed: int) -> World:
    """Candidates of two rounds in a random order, some not judged, with ties on purpose."""
    rng = random.Random(seed)
    drawn = [candidate(p, r, i) for p in PROMPTS[:5] for r in range(2) for i in range(rng.randrange(7))]
    rng.shuffle(drawn)
    logits = {c.id: rng.choice([-2.0, -1.0, 0.0, 1.0, rng.uniform(-3, 3)]) for c in drawn if rng.random() < 0.9}
    return drawn, logits


def ahead(mine: Candidate, drawn: list[Candidate], logits: dict[str, float], among: Callable[[float], bool]) -> int:
    """How many judged candidates of the same prompt are surer, ties broken by id."""
    return sum(
        (-logits[c.id], c.id) < (-logits[mine.id], mine.id)
        for c in drawn
        if c.prompt == mine.prompt and c.id in logits and among(logits[c.id])
    )


@pytest.mark.parametrize("threshold", [0.2, 0.5, 0.8])
@pytest.mark.parametrize("count", [1, 2, 8])
def test_selection_is_what_its_definition_says(threshold: float, count: int) -> None:
    bar = math.log(threshold / (1 - threshold))
    for seed in range(20):
        drawn, logits = world(seed)
        yes = [c for c in drawn if logits.get(c.id, -math.inf) >= bar]
        no = [c for c in drawn if logits.get(c.id, math.inf) < bar]
        kept = {c.id for c in yes if ahead(c, drawn, logits, lambda logit: True) < count}
        found = accepted_rows(drawn, logits, threshold, keep=count)
        assert {c.id for c in found} == kept and len(found) == len(kept)
        chosen = {(c.prompt.id, ahead(c, drawn, logits, lambda logit: logit >= bar)): c for c in yes}
        firmness = {p.id: sum(c.prompt == p for c in no) - 1 for p in PROMPTS}
        rejected = {
            (c.prompt.id, firmness[c.prompt.id] - ahead(c, drawn, logits, lambda logit: logit < bar)): c for c in no
        }
        expected = {(chosen[key].id, rejected[key].id) for key in chosen.keys() & rejected.keys() if key[1] < count}
        pairs = preference_pairs(drawn, logits, threshold, per_prompt=count)
        assert {(pair.chosen.id, pair.rejected.id) for pair in pairs} == expected and len(pairs) == len(expected)
        assert all(pair.chosen.prompt == pair.rejected.prompt for pair in pairs)
        left = discarded_prompts(PROMPTS, drawn, logits, threshold)
        assert left == [p for p in PROMPTS if not any(c.prompt == p for c in yes)]


def test_the_order_in_which_candidates_come_changes_nothing_about_the_choice() -> None:
    drawn, logits = world(3)
    back = drawn[::-1]
    assert sorted(c.id for c in accepted_rows(drawn, logits, keep=2)) == sorted(
        c.id for c in accepted_rows(back, logits, keep=2)
    )
    assert {(p.chosen.id, p.rejected.id) for p in preference_pairs(drawn, logits)} == {
        (p.chosen.id, p.rejected.id) for p in preference_pairs(back, logits)
    }


@pytest.mark.parametrize("threshold", [0.1, 0.5, 0.75])
def test_exactly_at_the_threshold_is_accepted_and_a_hair_below_is_not(threshold: float) -> None:
    bar = threshold_logit(threshold)
    at, below = candidate(PROMPTS[0], 0, 0), candidate(PROMPTS[0], 0, 1)
    logits = {at.id: bar, below.id: math.nextafter(bar, -math.inf)}
    assert accepted_rows([at, below], logits, threshold) == [at]
    assert preference_pairs([at, below], logits, threshold) == [Pair(at, below)]
    assert discarded_prompts(PROMPTS[:1], [at], logits, threshold) == []
    assert discarded_prompts(PROMPTS[:1], [below], logits, threshold) == PROMPTS[:1]
    assert Judgment(at.id, "self", bar).p_yes == pytest.approx(threshold)


@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
def test_figures_and_training_rows_are_cut_at_the_same_log_odds(kind: torch.dtype) -> None:
    drawn = [candidate(PROMPTS[0], 0, index) for index in range(3)]
    for thousandth in range(1, 1000):
        threshold = thousandth / 1000
        bar = torch.tensor(threshold_logit(threshold), dtype=kind)
        ends = torch.tensor([-math.inf, math.inf], dtype=kind)
        logit_S = torch.stack([torch.nextafter(bar, ends[0]), bar, torch.nextafter(bar, ends[1])])
        logits = dict(zip([c.id for c in drawn], logit_S.tolist(), strict=True))
        accepted = {c.id for c in accepted_rows(drawn, logits, threshold)}
        assert says_yes(logit_S, threshold).tolist() == [c.id in accepted for c in drawn], threshold


def test_half_is_the_sign_of_the_log_odds() -> None:
    assert threshold_logit(0.5) == 0


def test_the_surest_come_first_and_every_round_counts() -> None:
    drawn = [candidate(PROMPTS[0], round, 0) for round in range(4)]
    logits = dict(zip([c.id for c in drawn], [0.5, 3.0, -1.0, 2.0], strict=True))
    assert accepted_rows(drawn, logits, keep=2) == [drawn[1], drawn[3]]
    assert preference_pairs(drawn, logits, per_prompt=5) == [Pair(drawn[1], drawn[2])]
    assert discarded_prompts(PROMPTS, drawn, logits) == PROMPTS[1:]


def test_prompts_nobody_judged_give_no_rows_and_wait() -> None:
    drawn = [candidate(PROMPTS[0], 0, i) for i in range(3)]
    assert accepted_rows(drawn, {}) == [] and preference_pairs(drawn, {}) == []
    assert discarded_prompts(PROMPTS, drawn, {}) == PROMPTS[1:], "the others were never drawn"
    assert discarded_prompts(PROMPTS, drawn, {drawn[2].id: -1.0}) == PROMPTS


@pytest.mark.parametrize("threshold", [0.0, 1.0, -1.0, 2.0, math.nan])
def test_a_threshold_outside_the_open_unit_interval_is_refused(threshold: float) -> None:
    for call in (accepted_rows, preference_pairs):
        with pytest.raises(ValueError, match="threshold must be a probability"):
            call([], {}, threshold)
    with pytest.raises(ValueError, match="threshold must be a probability"):
        discarded_prompts([], [], {}, threshold)


def test_keeping_or_pairing_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="keep must be >= 1, got 0"):
        accepted_rows([], {}, keep=0)
    with pytest.raises(ValueError, match="per_prompt must be >= 1, got 0"):
        preference_pairs([], {}, per_prompt=0)


def test_closest_pairs_set_the_surest_yes_against_the_least_sure_no() -> None:
    drawn = [candidate(PROMPTS[0], 0, i) for i in range(4)]
    logits = dict(zip([c.id for c in drawn], [2.0, -3.0, -0.1, -1.0], strict=True))
    assert preference_pairs(drawn, logits, per_prompt=2, rule="closest") == [Pair(drawn[0], drawn[2])]
    assert preference_pairs(drawn, logits, per_prompt=2, rule="extreme") == [Pair(drawn[0], drawn[1])]


def test_balanced_rows_weigh_every_prompt_the_same_and_lose_none() -> None:
    rows = [candidate(PROMPTS[0], 0, i) for i in range(3)] + [candidate(PROMPTS[1], 0, 0)]
    found = balanced(rows, 2)
    assert found == [*rows[:3], rows[3], rows[3]], "a prompt with more than enough keeps them"
    assert [c.prompt.id for c in balanced(rows, 5)] == ["p0"] * 5 + ["p1"] * 5
