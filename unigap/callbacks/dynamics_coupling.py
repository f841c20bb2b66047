"""Locate the coupling of generation and understanding: by part of the network and by group of images.

Shape legend: n images, each with one generation and one understanding gradient.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence

import torch

from theory import Alignment, Gram, Tested, alignment

KINDS = {"self_attn": "attention", "mlp": "mlp"}
GENERATION_EXPERT = "_moe_gen"
"""What the names of a generation expert's modules contain, in layers with two experts."""


def layer_of(module: str) -> str:
    """Return the part of the shared LLM that a module belongs to, or the module's own name outside the layers.

    >>> layer_of("net.model.language_model.layers.2.self_attn.q_proj")
    'layer 2 attention'
    >>> layer_of("net.language_model.model.layers.2.mlp_moe_gen.up_proj")
    'layer 2 mlp of the generation expert'
    """
    found = re.search(r"\blayers\.(\d+)\.(\w+)", module)
    if found is None:
        return module.rpartition(".")[2]
    kind = next((kind for name, kind in KINDS.items() if found[2].startswith(name)), "norms")
    expert = " of the generation expert" if GENERATION_EXPERT in module else ""
    return f"layer {found[1]} {kind}{expert}"


def coupling_by_part(gram: Gram) -> dict[str, Tested]:
    """Split the mean own-pair cosine into additive contributions of the parts of the network.

    The null pairs the understanding samples with other images. Its mean and standard deviation are exact; the p-value
    comes from Chebyshev's one-sided inequality, which holds for any distribution and is conservative.

    Args:
        gram: Paired Gram of two sources with parts.

    Returns:
        The contribution of each part with its null, from the first layer to the last.
    """
    n = gram.sizes[0]
    norms_g, norms_u = gram.gg.diagonal().double().sqrt(), gram.uu.diagonal().double().sqrt()
    scale = norms_g[:, None] * norms_u[None, :]
    found = {}
    for name in sorted(gram.parts, key=_depth):
        # a gradient of zero has cosine 0 with all others, as in Gram.cosines
        cosine = torch.where(scale > 0, gram.part(name).gu.double() / scale, 0.0)
        value, mean = float(cosine.diagonal().mean()), float(cosine.mean())
        apart = cosine - cosine.mean(0, keepdim=True) - cosine.mean(1, keepdim=True) + cosine.mean()
        spread = float(apart.square().sum().div(n - 1).sqrt() / n)  # Hoeffding 1951, theorem 2
        above = max(value - mean, 0.0)
        found[name] = Tested(value, mean, spread, spread**2 / (spread**2 + above**2) if above else 1.0)
    return found


def _depth(part: str) -> tuple[float, str]:
    number = re.search(r"\d+", part)
    return (float(number[0]) if number else float("inf"), part)


def subset(gram: Gram, images: Sequence[int]) -> Gram:
    """Return the paired Gram of some of the images."""
    n = gram.sizes[0]
    at = torch.tensor([*images, *(n + i for i in images)])
    parts = {name: part[at][:, at] for name, part in gram.parts.items()}
    return Gram(gram.K[at][:, at], gram.values[at], (len(images), len(images)), gram.method, parts)


def coupling_tests(gram: Gram, permutations: int) -> dict[str, Tested]:
    """Test the coupling between the two heads, see ``theory.alignment``.

    If one head has no gradient in any sample, because no weight that trains reaches it, nothing is coupled: every
    statistic is exactly 0, and its p-value 1.

    Args:
        gram: Paired Gram of two sources.
        permutations: Number of random re-pairings in the null.

    Returns:
        The statistics of ``theory.Alignment`` by name.

    Raises:
        ValueError: As ``theory.alignment``, for a gradient that is zero in some samples only.
    """
    if gram.gg.any() and gram.uu.any():
        return dict(vars(alignment(gram, permutations)))
    return {field.name: Tested(0.0, 0.0, 0.0, 1.0) for field in dataclasses.fields(Alignment)}


def own_cosine_by_group(gram: Gram, groups: Mapping[str, Sequence[int]], permutations: int) -> dict[str, Tested]:
    """Return the mean own-pair cosine of each group of 3 images or more, with the null within the group."""
    return {
        name: coupling_tests(subset(gram, images), permutations)["own_cosine"]
        for name, images in groups.items()
        if len(images) >= 3
    }
