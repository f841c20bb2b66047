"""Guidance, filters and inverse-CDF sampling, against probabilities worked out the long way."""

from __future__ import annotations

import math

import pytest
import torch

from unigap.models.base import SamplingRecipe
from unigap.models.engine.autoregressive import Sampled, invert_cdf, sample_codes, sample_next, uniforms

V = 12
RECIPES = [
    SamplingRecipe(),
    SamplingRecipe(temperature=0.5),
    SamplingRecipe(temperature=3.0),
    SamplingRecipe(top_k=1),
    SamplingRecipe(top_k=4),
    SamplingRecipe(top_k=V),
    SamplingRecipe(top_k=V + 5),
    SamplingRecipe(top_p=0.05),
    SamplingRecipe(top_p=0.5),
    SamplingRecipe(top_p=0.999),
    SamplingRecipe(temperature=1.7, top_k=6, top_p=0.8),
]


def logits(rows: int = 5, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, V, generator=torch.Generator().manual_seed(seed)) * 2


def by_hand(row: list[float], recipe: SamplingRecipe) -> list[float]:
    """Probability of each code: temper, keep the top k, renormalise, keep the smallest set that reaches top p."""
    weights = {code: math.exp(value / recipe.temperature) for code, value in enumerate(row)}
    order = sorted(weights, key=weights.__getitem__, reverse=True)
    order = order[: recipe.top_k or len(order)]
    total = sum(weights[code] for code in order)
    kept, reached = [], 0.0
    for code in order:
        if reached < recipe.top_p:
            kept.append(code)
            reached += weights[code] / total
    mass = sum(weights[code] for code in kept)
    return [weights[code] / mass if code in kept else 0.0 for code in range(len(row))]


@pytest.mark.parametrize("recipe", RECIPES, ids=str)
def test_codes_are_drawn_in_proportion_to_their_probability(recipe: SamplingRecipe) -> None:
    points = 5000
    grid = (torch.arange(points, dtype=torch.float64) + 0.5) / points
    for row_V in logits():
        drawn = invert_cdf(row_V.repeat(points, 1), grid, recipe)
        counts = torch.bincount(drawn, minlength=V).tolist()
        for count, probability in zip(counts, by_hand(row_V.tolist(), recipe), strict=True):
            # an evenly spaced grid puts within one point of its share on every interval
            assert abs(count - probability * points) <= 1.001
            assert count == 0 or probability > 0


@pytest.mark.parametrize("recipe", RECIPES, ids=str)
def test_the_code_is_the_first_whose_cumulative_probability_exceeds_the_draw(recipe: SamplingRecipe) -> None:
    logits_RV = logits(40, seed=1)
    uniform_R = torch.rand(40, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    expected = []
    for row, uniform in zip(logits_RV.tolist(), uniform_R.tolist(), strict=True):
        cumulative, code = 0.0, -1
        while cumulative <= uniform:
            code += 1
            cumulative += by_hand(row, recipe)[code]
        expected.append(code)
    assert invert_cdf(logits_RV, uniform_R, recipe).tolist() == expected


@pytest.mark.parametrize("recipe", RECIPES, ids=str)
def test_the_ends_of_the_unit_interval_draw_a_code_that_is_kept(recipe: SamplingRecipe) -> None:
    for uniform in (0.0, 2**-53, 1 - 2**-53):
        codes = invert_cdf(logits(), torch.full((5,), uniform, dtype=torch.float64), recipe)
        for row, code in zip(logits().tolist(), codes.tolist(), strict=True):
            assert by_hand(row, recipe)[code] > 0


def test_temperature_zero_and_the_smallest_temperatures_are_greedy() -> None:
    uniform_R = torch.full((5,), 0.999, dtype=torch.float64)
    greedy = logits().argmax(-1)
    for temperature in (0.0, 1e-310, 1e-30, 1e-3):
        assert torch.equal(invert_cdf(logits(), uniform_R, SamplingRecipe(temperature=temperature)), greedy)


def test_codes_the_model_rules_out_are_never_drawn() -> None:
    row_V = torch.full((1, V), -torch.inf)
    row_V[0, 7] = -3.0
    for uniform in (0.0, 0.5, 1 - 2**-53):
        assert invert_cdf(row_V, torch.tensor([uniform], dtype=torch.float64), SamplingRecipe()).item() == 7


@pytest.mark.parametrize(
    ("field", "value"),
    [("temperature", -0.1), ("temperature", math.nan), ("cfg", 0.9), ("cfg", math.inf), ("cfg", math.nan),
     ("top_k", -1), ("top_p", 0.0), ("top_p", 1.1), ("top_p", math.nan)],
)  # fmt: skip
def test_impossible_recipes_are_refused(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{field} must be"):
        SamplingRecipe(**{field: value})


def test_every_seed_has_a_stream_of_its_own() -> None:
    seeds = torch.tensor([5, 0, 2**63 - 1, 5])
    streams = uniforms(seeds, 1000)
    assert streams.dtype == torch.float64 and streams.shape == (4, 1000)
    assert streams.min() >= 0 and streams.max() < 1
    assert torch.equal(streams[0], streams[3]) and torch.equal(streams[1], uniforms(torch.tensor([0]), 1000)[0])
    assert torch.equal(streams[:, :10], uniforms(seeds, 10))
    assert len({row[0].item() for row in streams}) == 3
    assert abs(uniforms(torch.arange(2000), 1).mean().item() - 0.5) < 0.03


@pytest.mark.parametrize("cfg", [1.0, 2.5])
def test_guidance_moves_the_draw_and_not_the_log_probability(cfg: float) -> None:
    conditional, unconditional = logits(6, seed=3), logits(6, seed=4)
    asked = conditional if cfg == 1 else torch.cat([conditional, unconditional])
    recipe = SamplingRecipe(temperature=0, cfg=cfg)
    seen: list[list[int]] = []

    def step(code_R: torch.Tensor, uniform_R: torch.Tensor) -> Sampled:
        seen.append(code_R.tolist())
        return sample_next(asked, uniform_R, recipe)

    codes_RM, logp_RM, behaviour_RM = sample_codes(asked, step, torch.rand(6, 3, dtype=torch.float64), recipe)
    guided = unconditional + cfg * (conditional - unconditional)
    expected = guided.argmax(-1)
    assert torch.equal(codes_RM, expected[:, None].expand(6, 3))
    assert (cfg == 1) == torch.equal(expected, conditional.argmax(-1))
    logp_R = conditional.log_softmax(-1)[range(6), expected]
    torch.testing.assert_close(logp_RM, logp_R[:, None].expand(6, 3))
    assert not behaviour_RM.any()  # a greedy choice is certain
    assert seen == [expected.tolist()] * 2  # the last code needs no further step


@pytest.mark.parametrize(
    "recipe", [SamplingRecipe(), SamplingRecipe(top_k=3, top_p=0.9), SamplingRecipe(temperature=0)]
)
def test_logits_that_are_nan_after_the_first_code_are_refused(recipe: SamplingRecipe) -> None:
    broken, given = torch.full((2, 7), math.nan), []

    def step(code_R: torch.Tensor, uniform_R: torch.Tensor) -> Sampled:
        given.append(int(code_R.max()))
        return sample_next(broken, uniform_R, recipe)

    with pytest.raises(ValueError, match="logits are not finite"):
        sample_codes(torch.zeros(2, 7), step, torch.rand(2, 4, dtype=torch.float64), recipe)
    # an embedding of a code that does not exist would end a GPU's process first
    assert len(given) == 3 and max(given) < 7


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_logits_that_are_not_finite_are_refused(bad: float) -> None:
    broken = logits(2)
    broken[1, 3] = bad
    with pytest.raises(ValueError, match="not finite"):
        sample_codes(
            broken,
            lambda code_R, uniform_R: sample_next(broken, uniform_R, SamplingRecipe()),
            torch.zeros(2, 2),
            SamplingRecipe(),
        )
