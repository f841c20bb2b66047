"""Weights that autocast casts once a batch, and image tokenizers that compute in float32."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from unigap.loop.sampling import sample_candidates, seed_of
from unigap.models.base import SamplingRecipe
from unigap.models.engine import static_decoding
from unigap.models.engine.precision import float32_arithmetic
from unigap.records import Prompt

PROMPTS = [Prompt("0", "a red circle")]


class CastWeights(TorchDispatchMode):
    """Counts how often a float32 matrix of at least ``size`` numbers is cast."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size, self.count = size, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._to_copy.default and args[0].ndim == 2 and args[0].numel() >= self.size:
            self.count += (kwargs or {}).get("dtype") is torch.bfloat16
        return func(*args, **(kwargs or {}))


@contextmanager
def mixed_precision() -> Iterator[None]:
    """Autocast as Lightning opens it for ``bf16-mixed``."""
    with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
        yield


def codes(janus: Any) -> list[Any]:
    return [
        c.drawing.tolist() for b in sample_candidates(janus, PROMPTS, 2, 0, 0, SamplingRecipe()) for c in b.candidates
    ]


def test_trained_weights_are_cast_once_a_batch_and_draw_the_same(new_janus: Callable[..., Any]) -> None:
    janus = new_janus()
    matrices = sum(p.ndim == 2 for p in janus.trunk.parameters())
    with mixed_precision():
        prompt, seeds_1N = (
            janus.encode_prompt([PROMPTS[0].text]),
            torch.tensor([[seed_of(0, 0, "0", i) for i in (0, 1)]]),
        )
        plain_1NM = janus.sample_images(prompt, seeds_1N, SamplingRecipe()).drawings_BN
        with CastWeights(64 * 64) as cast:
            found = codes(janus)
    assert found == plain_1NM[0].tolist()
    # the frozen head and the aligner are cast at every step
    assert matrices <= cast.count < 2 * matrices + 4 * janus.image_tokens


class CastCaches(TorchDispatchMode):
    """Counts how often keys or values of more than one token are cast."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._to_copy.default and args[0].ndim == 3 and args[0].shape[1] > 1:
            self.count += (kwargs or {}).get("dtype") is torch.bfloat16
        return func(*args, **(kwargs or {}))


def test_keys_and_values_are_cast_once_and_not_at_every_token(janus: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with mixed_precision():
        with CastCaches() as kept:
            found = codes(janus)
        monkeypatch.setattr(static_decoding, "product_dtype", lambda tensor: tensor.dtype)
        with CastCaches() as cast:
            expected = codes(janus)
    assert found == expected
    layers = len(janus.core.language_model.layers)
    assert cast.count - kept.count == 2 * layers * (janus.image_tokens - 1)


def test_the_next_batch_is_drawn_with_the_weights_of_its_time(new_janus: Callable[..., Any]) -> None:
    janus = new_janus()
    with mixed_precision():
        before = codes(janus)
        with torch.no_grad():
            for parameter in janus.trunk.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
        after = codes(janus)
    with mixed_precision():
        assert codes(janus) == after != before


@pytest.mark.parametrize("family", ["janus", "showo", "emu3"])
def test_image_tokenizers_compute_without_tf32(
    family: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = request.getfixturevalue(family)
    seen: set[bool] = set()
    convolve = torch.nn.Conv2d.forward

    def watched(module: Any, x: torch.Tensor) -> torch.Tensor:
        seen.add(torch.backends.cudnn.allow_tf32)
        return convolve(module, x)

    monkeypatch.setattr(torch.nn.Conv2d, "forward", watched)
    before = torch.backends.cudnn.allow_tf32
    model.encode(model.decode(torch.zeros(1, model.image_tokens, dtype=torch.int64)))
    assert seen == {False}
    assert torch.backends.cudnn.allow_tf32 is before is True


def test_tf32_is_as_before_after_an_error() -> None:
    with pytest.raises(KeyError), float32_arithmetic("cpu"):
        raise KeyError
    assert torch.backends.cudnn.allow_tf32
