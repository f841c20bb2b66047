"""Rectified flow between images (time 0) and noise (time 1): times and noise by seed, Euler steps, and the recipe."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch

from unigap.models.base import SamplingRecipe
from unigap.models.engine.finite import check_finite

# Shape legend: R images, M latent tokens of an image, C numbers of a latent token, F features of a time.

SLOWEST_PERIOD = 10_000
"""Ratio of the fastest to the slowest frequency of a time's features."""


def time_features(time_R: torch.Tensor, width: int) -> torch.Tensor:
    """Return the sinusoidal features of times, (R, F), cosines first; ``width`` is F, an even number."""
    half = width // 2
    frequency = SLOWEST_PERIOD ** -(torch.arange(half, device=time_R.device) / half)
    angle = time_R[:, None] * frequency
    return torch.cat([angle.cos(), angle.sin()], -1)


def shifted(time: torch.Tensor, shift: float) -> torch.Tensor:
    """Shift times in [0, 1] towards noise."""
    return shift * time / (1 + (shift - 1) * time)


def noises(seeds_R: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """Return the noise that images start from, float32 (R, *shape), each from its seed alone."""
    generator = torch.Generator()
    return torch.stack([torch.randn(shape, generator=generator.manual_seed(seed)) for seed in seeds_R.tolist()])


def training_draws(seeds_R: torch.Tensor, shape: tuple[int, int], shift: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a time (R,) and a noise (R, M, C) per seed, float32; a time is a logit-normal number, shifted."""
    generator = torch.Generator()
    times, epsilons = [], []
    for seed in seeds_R.tolist():
        times.append(torch.randn((), generator=generator.manual_seed(seed)).sigmoid())
        epsilons.append(torch.randn(shape, generator=generator))
    return shifted(torch.stack(times), shift), torch.stack(epsilons)


def euler(
    noise_RMC: torch.Tensor, times: torch.Tensor, velocity: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
) -> torch.Tensor:
    """Follow a flow from noise to images in Euler steps.

    Args:
        noise_RMC: Noise, at the first time.
        times: Times from 1 to 0.
        velocity: From latents and their time to the velocity, noise minus image.

    Raises:
        ValueError: The velocities are not finite.
    """
    latents_RMC = noise_RMC
    for time, after in itertools.pairwise(times):
        velocity_RMC = velocity(latents_RMC, time)
        if time == times[0]:
            check_finite(torch.isfinite(velocity_RMC), "velocities")
        # a number, not a tensor of the CPU: copying one to a GPU makes the host wait for all earlier kernels
        latents_RMC = latents_RMC - velocity_RMC * (time - after).item()
    check_finite(torch.isfinite(latents_RMC), "velocities")
    return latents_RMC


def check_recipe(name: str, recipe: SamplingRecipe) -> None:
    """Refuse what a flow cannot honour.

    Args:
        name: Name of the model, for the message.
        recipe: The recipe.

    Raises:
        ValueError: Temperature, top_k or top_p is set.
    """
    plain = SamplingRecipe(cfg=recipe.cfg)
    if recipe != plain:
        raise ValueError(
            f"{name} samples no codes: temperature {recipe.temperature}, top_k {recipe.top_k} and top_p {recipe.top_p} "
            "have no meaning; leave them at 1, 0 and 1"
        )
