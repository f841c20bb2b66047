"""How far judges agree, against textbook arithmetic and against counting by hand."""

from __future__ import annotations

import doctest
import itertools
import math

import pytest
import torch

import unigap.metrics.agreement
from unigap.metrics.agreement import cohen_kappa, fleiss_kappa, raw_agreement

TWO = torch.tensor([[True, True]] * 20 + [[True, False]] * 5 + [[False, True]] * 10 + [[False, False]] * 15)


def some_verdicts(samples: int = 60, judges: int = 3) -> torch.Tensor:
    """Judges that mostly follow one of them."""
    generator = torch.Generator().manual_seed(0)
    first_S = torch.rand(samples, generator=generator) < 0.6
    flips_SJ = torch.rand(samples, judges, generator=generator) < torch.tensor([0.0, 0.2, 0.4])[:judges]
    return first_S[:, None] ^ flips_SJ


def test_two_judges_of_fifty_drawings() -> None:
    # the usual worked example: they agree on 35 of 50, say yes to 25 and 30, so chance gives one half
    cluster_S = torch.arange(50)
    agree = raw_agreement(TWO, cluster_S)
    assert agree.value == pytest.approx(0.7) and agree.n == 50
    kappa = cohen_kappa(TWO[:, 0], TWO[:, 1], cluster_S)
    assert kappa.value == pytest.approx((0.7 - 0.5) / (1 - 0.5)) and kappa.n == 50
    assert kappa.low < kappa.value < kappa.high < 1


@pytest.mark.parametrize("judges", [2, 3])
def test_every_pair_of_judges_counts_the_same(judges: int) -> None:
    verdict_SJ = some_verdicts(judges=judges)
    rows = verdict_SJ.tolist()
    agreeing = [a == b for row in rows for a, b in itertools.combinations(row, 2)]
    agree, yes = sum(agreeing) / len(agreeing), sum(map(sum, rows)) / (len(rows) * judges)
    cluster_S = torch.arange(60) // 4
    assert raw_agreement(verdict_SJ, cluster_S).value == pytest.approx(agree)
    chance = yes**2 + (1 - yes) ** 2
    assert fleiss_kappa(verdict_SJ, cluster_S).value == pytest.approx((agree - chance) / (1 - chance))


def test_kappas_are_one_where_all_agree_and_below_zero_where_they_contradict() -> None:
    says_S, cluster_S = some_verdicts()[:, 0], torch.arange(60)
    assert cohen_kappa(says_S, says_S, cluster_S).value == pytest.approx(1)
    chance = 2 * (yes := says_S.double().mean().item()) * (1 - yes)
    assert cohen_kappa(says_S, ~says_S, cluster_S).value == pytest.approx(-chance / (1 - chance))
    assert fleiss_kappa(says_S[:, None].repeat(1, 4), cluster_S).value == pytest.approx(1)


def test_judges_that_know_nothing_of_each_other_agree_as_chance_does() -> None:
    generator = torch.Generator().manual_seed(1)
    verdict_SJ = torch.rand(4000, 3, generator=generator) < 0.7
    kappa = fleiss_kappa(verdict_SJ, torch.arange(4000))
    assert kappa.low < 0 < kappa.high and abs(kappa.value) < 0.03
    assert raw_agreement(verdict_SJ, torch.arange(4000)).value > 0.55, "and yet they often say the same"


def test_a_kappa_of_judges_who_always_say_the_same_is_undefined() -> None:
    yes_S, cluster_S = torch.ones(9).bool(), torch.arange(9)
    for kappa in (cohen_kappa(yes_S, yes_S, cluster_S), fleiss_kappa(yes_S[:, None].repeat(1, 3), cluster_S)):
        assert math.isnan(kappa.value) and kappa.n == 0


def test_drawings_of_one_prompt_are_resampled_together() -> None:
    alone = cohen_kappa(TWO[:, 0], TWO[:, 1], torch.arange(50))
    together = cohen_kappa(TWO[:, 0], TWO[:, 1], torch.arange(50) // 5)
    assert together.value == alone.value
    assert together.high - together.low > 1.3 * (alone.high - alone.low)
    assert math.isnan(cohen_kappa(TWO[:, 0], TWO[:, 1], torch.zeros(50).long()).low), "one prompt shows no spread"
    again = cohen_kappa(TWO[:, 0], TWO[:, 1], torch.arange(50))
    assert again == alone != cohen_kappa(TWO[:, 0], TWO[:, 1], torch.arange(50), seed=1)


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(ValueError, match="judges >= 2"):
        raw_agreement(TWO[:, :1], torch.arange(50))
    with pytest.raises(ValueError, match="must be bool"):
        fleiss_kappa(TWO.float(), torch.arange(50))
    with pytest.raises(ValueError, match="holds 49 samples"):
        cohen_kappa(TWO[:, 0], TWO[1:, 1], torch.arange(50))


def test_the_examples_in_the_docstrings_hold() -> None:
    result = doctest.testmod(unigap.metrics.agreement)
    assert result.failed == 0 < result.attempted
