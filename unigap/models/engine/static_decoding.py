"""Decode token by token in a KV cache of fixed shape, so that one step can be compiled or captured as a CUDA graph."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch.nn import functional as F

from unigap.models.engine.attention import additive, positions
from unigap.models.engine.autoregressive import Sampled, Step
from unigap.models.engine.one_token import Rotary, rms_norm, rotary_tables, run_layer
from unigap.models.engine.precision import product_dtype

# Shape legend: P prefilled prompts, R decoded rows, L prompt tokens, S cache slots (L and extra slots), H heads,
# D head or hidden width, W head width.

MaskedStep = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], Sampled]
"""From the mask of the cache slots, codes (R,) and uniform numbers (R,) to the next codes and their
log-probabilities."""
GRAPHS = 4
"""CUDA graphs of one batch. A capture costs two steps; with four, attention reads five eighths of the slots."""
LENGTH_MULTIPLE = 16
"""Prompt lengths are rounded up to a multiple of this, so that they share a compiled step."""


class DecodingCache:
    """KV cache with preallocated slots, with the mask and rotary tables of R rows decoded in parallel.

    Args:
        rotary: The backbone's rotary embedding.
        prefilled: transformers' cache after the prompts.
        mask_PL: 1 for prompt tokens, 0 for padding.
        row_R: Index of the prompt that each row continues. A prompt is prefilled once for all its rows.
        extra_slots: Slots after the prompt, at least one per step.
        fixed: Whether attention reads ``slots_read`` slots at each step, because a CUDA graph repeats one shape;
            otherwise it reads the written slots.

    Attributes:
        slots_read: Number of slots that attention reads if ``fixed``, at first all.
    """

    def __init__(
        self, rotary: Any, prefilled: Any, mask_PL: torch.Tensor, row_R: torch.Tensor, extra_slots: int, fixed: bool
    ) -> None:
        # one slot that is never read, because torch.compile specialises on a slice that covers the whole buffer
        extra_slots += 1
        self.rows = len(row_R)
        self.keys = [_with_extra_slots(layer.keys, row_R, extra_slots) for layer in prefilled.layers]
        self.values = [_with_extra_slots(layer.values, row_R, extra_slots) for layer in prefilled.layers]
        # if all slots are read, the unwritten ones are masked until their step
        allowed_RS = F.pad(mask_PL[row_R].bool(), (0, extra_slots), value=not fixed)
        bias_R1S = additive(allowed_RS, self.keys[0].dtype)[:, None]
        on_cpu = bias_R1S.device.type == "cpu"
        self.bias = bias_R1S.repeat_interleave(self.keys[0].shape[1], 0) if on_cpu else bias_R1S[:, None]
        position_RS = positions(F.pad(mask_PL[row_R], (0, extra_slots), value=1))
        # the tables take the precision of their first argument
        self.rotary_tables = rotary_tables(*rotary(prefilled.layers[0].keys, position_RS))
        self.slot_1 = torch.tensor([mask_PL.shape[1]], device=mask_PL.device)
        self.fixed, self.length, self.slots_read = fixed, mask_PL.shape[1], allowed_RS.shape[1]

    def next_bias(self) -> torch.Tensor:
        """Allow attention to the next slot; return the mask, whose last dimension is the slots that are read."""
        if self.fixed:
            return self.bias.index_fill_(-1, self.slot_1, 0)[..., : self.slots_read]
        self.length += 1
        return self.bias[..., : self.length]

    def next_rotary(self) -> Rotary:
        """Return the rotary cos and sin at the next position."""
        cos_R1SW, sin_R1SW = self.rotary_tables
        return cos_R1SW.index_select(2, self.slot_1), sin_R1SW.index_select(2, self.slot_1)

    def advance(self) -> None:
        """Move to the next slot."""
        self.slot_1.add_(1)

    def update(self, layer: int, key_RH1D: torch.Tensor, value_RH1D: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Write the token's key and value into the next slot and return those of all slots."""
        keys, values = self.keys[layer], self.values[layer]
        # under autocast rotary embeddings have more precision than the products that read them
        keys.index_copy_(2, self.slot_1, key_RH1D.to(keys.dtype))
        values.index_copy_(2, self.slot_1, value_RH1D.to(values.dtype))
        return keys, values


def step_trunk(llm: Any, embeds_R1D: torch.Tensor, cache: DecodingCache, bias: torch.Tensor) -> torch.Tensor:
    """Run one token per row through a Llama-like backbone, return hidden states (R, D), and advance the cache.

    Args:
        llm: The backbone.
        embeds_R1D: Embeddings of the tokens.
        cache: KV cache of the rows.
        bias: The mask from ``cache.next_bias``.
    """
    rotary = cache.next_rotary()
    hidden_RD = embeds_R1D[:, 0]
    for number, layer in enumerate(llm.layers):
        hidden_RD = run_layer(layer, hidden_RD, rotary, partial(cache.update, number), bias)
    cache.advance()
    return rms_norm(llm.norm, hidden_RD)


@contextlib.contextmanager
def guards_checked_once(run: MaskedStep, cache: DecodingCache) -> Iterator[Step]:
    """Check torch.compile's guards on the first call only.

    Later calls on the same cache differ only in the number of slots, and checking the guards takes as long as a layer.

    Args:
        run: The compiled step, which reads and writes ``cache``.
        cache: KV cache of the rows.
    """
    with contextlib.ExitStack() as after_first_call:
        called = False

        def checked(code_R: torch.Tensor, uniform_R: torch.Tensor) -> Sampled:
            nonlocal called
            bias = cache.next_bias()
            if called:
                return run(bias, code_R, uniform_R)
            called = True
            torch._dynamo.mark_dynamic(bias, bias.dim() - 1)
            # compile again for another number of rows: a step with dynamic rows is slower
            with torch._dynamo.config.patch(automatic_dynamic_shapes=False):
                sampled = run(bias, code_R, uniform_R)
            after_first_call.enter_context(torch.compiler.set_stance("default", skip_guard_eval_unsafe=True))
            return sampled

        yield checked


def captured_in_parts(step: Step, cache: DecodingCache, code_R: torch.Tensor, uniform_R: torch.Tensor) -> Step:
    """Capture a step as ``captured`` does, ``GRAPHS`` times while slots are filled: each graph reads more slots.

    One graph for all slots would read as many keys and values at the first token as at the last one.

    Args:
        step: The step, which reads and writes ``cache``.
        cache: KV cache of the rows, with ``fixed`` slots.
        code_R: Example codes.
        uniform_R: Example uniform numbers.
    """
    slots = cache.slots_read
    part = -(-(slots - cache.length) // GRAPHS)
    written, replay = itertools.count(cache.length), step
    cache.slots_read = cache.length

    def run(last_R: torch.Tensor, new_uniform_R: torch.Tensor) -> Sampled:
        nonlocal replay
        if next(written) == cache.slots_read:
            cache.slots_read = min(cache.slots_read + part, slots)
            replay = captured(step, cache, code_R, uniform_R)
        return replay(last_R, new_uniform_R)

    return run


def captured(step: Step, cache: DecodingCache, code_R: torch.Tensor, uniform_R: torch.Tensor) -> Step:
    """Capture a step as a CUDA graph: one launch instead of one per operation.

    Args:
        step: The step, which reads and writes ``cache``.
        cache: KV cache of the rows; its state is restored.
        code_R: Example codes.
        uniform_R: Example uniform numbers.
    """
    code_R, uniform_R = code_R.clone(), uniform_R.clone()
    slot_1 = cache.slot_1.clone()
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        step(code_R, uniform_R)  # warm up: the initialisation of CUDA libraries cannot be captured
    torch.cuda.current_stream().wait_stream(side)
    # the first real step overwrites the slot written by the warm-up
    cache.slot_1.copy_(slot_1)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        next_R, logp_R, behaviour_R = step(code_R, uniform_R)

    def replay(last_R: torch.Tensor, new_uniform_R: torch.Tensor) -> Sampled:
        code_R.copy_(last_R)
        uniform_R.copy_(new_uniform_R)
        graph.replay()
        return next_R.clone(), logp_R.clone(), behaviour_R.clone()

    return replay


def padded_rows(rows: int) -> int:
    """Return the number of rows of the compiled step for ``rows``: the next power of two, or multiple of 16."""
    return 1 << (rows - 1).bit_length() if rows <= 16 else -(-rows // 16) * 16


def padded_length(tokens: int) -> int:
    """Return the prompt length of the compiled step for ``tokens``: the next multiple of ``LENGTH_MULTIPLE``."""
    return -(-tokens // LENGTH_MULTIPLE) * LENGTH_MULTIPLE


def _with_extra_slots(filled_PHLD: torch.Tensor, row_R: torch.Tensor, extra_slots: int) -> torch.Tensor:
    _, heads, length, width = filled_PHLD.shape
    # attention would cast all slots at every token
    dtype = product_dtype(filled_PHLD)
    buffer_RHSD = filled_PHLD.new_zeros(len(row_R), heads, length + extra_slots, width, dtype=dtype)
    buffer_RHSD[:, :, :length] = filled_PHLD[row_R]
    return buffer_RHSD
