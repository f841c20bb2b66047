"""Token-by-token decoding on buffers whose shapes never change, so that one step can be compiled or captured."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch.nn import functional as F

from unigap.models.engine.attention import additive, positions
from unigap.models.engine.autoregressive import Drawn, Step
from unigap.models.engine.one_token import Rotation, normed, rotation, run_layer

# Shape legend: P prompts that are prefilled, R rows that are decoded, L prompt tokens, S slots (prompt and room),
# H heads, D head or hidden width.

OpenStep = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], Drawn]
"""The mask of the slots that are read, codes (R,) and uniform numbers (R,), to the next codes and their
log-probabilities."""
SLOTS = 16
"""Prompts share a compiled step up to the next multiple of so many tokens."""


class StepBuffers:
    """Keys, values, places and mask of R rows that are decoded side by side.

    Args:
        rotary: The trunk's rotary embedding.
        prefilled: transformers' cache after the prompts.
        mask_PL: 1 for tokens of a prompt, 0 for its padding.
        row_R: The prompt that each row continues: a prompt is prefilled once, however many rows continue it.
        room: Slots behind the prompt, one for each step at the least.
        fixed: Whether attention reads all slots at each step, as captured steps have to; otherwise it reads those that
            are written.
    """

    def __init__(
        self, rotary: Any, prefilled: Any, mask_PL: torch.Tensor, row_R: torch.Tensor, room: int, fixed: bool
    ) -> None:
        # one slot that is never read: to a compiled step all of a buffer is another case than a part of it
        room += 1
        self.rows = len(row_R)
        self.keys = [_with_room(layer.keys, row_R, room) for layer in prefilled.layers]
        self.values = [_with_room(layer.values, row_R, room) for layer in prefilled.layers]
        # where all slots are read, those that are not written yet are closed, and each is opened by its step
        seen_RS = F.pad(mask_PL[row_R].bool(), (0, room), value=not fixed)
        bias_R1S = additive(seen_RS, self.keys[0].dtype)[:, None]
        on_cpu = bias_R1S.device.type == "cpu"
        self.bias = bias_R1S.repeat_interleave(self.keys[0].shape[1], 0) if on_cpu else bias_R1S[:, None]
        place_RS = positions(F.pad(mask_PL[row_R], (0, room), value=1))
        self.turns = rotation(*rotary(self.keys[0], place_RS))
        self.slot_1 = torch.tensor([mask_PL.shape[1]], device=mask_PL.device)
        self.fixed, self.read = fixed, mask_PL.shape[1]

    def open(self) -> torch.Tensor:
        """Lets attention see the slot that is written next; the mask, its last dimension the slots that are read."""
        if self.fixed:
            return self.bias.index_fill_(-1, self.slot_1, 0)
        self.read += 1
        return self.bias[..., : self.read]

    def turn(self) -> Rotation:
        """By what the queries and keys of the tokens that are written next are turned."""
        cos_R1SW, sin_R1SW = self.turns
        return cos_R1SW.index_select(2, self.slot_1), sin_R1SW.index_select(2, self.slot_1)

    def close(self) -> None:
        """Moves on by one slot."""
        self.slot_1.add_(1)

    def update(self, layer: int, key_RH1D: torch.Tensor, value_RH1D: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Writes the token's key and value into its slot and gives back those of all slots."""
        keys, values = self.keys[layer], self.values[layer]
        # under autocast a code's embedding has another precision than a word's
        keys.index_copy_(2, self.slot_1, key_RH1D.to(keys.dtype))
        values.index_copy_(2, self.slot_1, value_RH1D.to(values.dtype))
        return keys, values


def step_trunk(llm: Any, embeds_R1D: torch.Tensor, buffers: StepBuffers, bias: torch.Tensor) -> torch.Tensor:
    """One token of each row through a Llama-like trunk, hidden states (R, D); the buffers move on by one slot.

    Args:
        llm: The trunk.
        embeds_R1D: The tokens.
        buffers: What earlier tokens left.
        bias: The mask that ``buffers.open`` gave.
    """
    turn = buffers.turn()
    hidden_RD = embeds_R1D[:, 0]
    for number, layer in enumerate(llm.layers):
        hidden_RD = run_layer(layer, hidden_RD, turn, partial(buffers.update, number), bias)
    buffers.close()
    return normed(llm.norm, hidden_RD)


@contextlib.contextmanager
def checked_once(run: OpenStep, buffers: StepBuffers) -> Iterator[Step]:
    """A compiled step whose first call alone is held against what it was compiled for.

    All others on the same buffers are alike but for the number of slots, and the check takes as long as a layer.

    Args:
        run: Reads and writes ``buffers``.
        buffers: What it works on.
    """
    with contextlib.ExitStack() as unchecked:
        called = False

        def checked(code_R: torch.Tensor, uniform_R: torch.Tensor) -> Drawn:
            nonlocal called
            bias = buffers.open()
            if called:
                return run(bias, code_R, uniform_R)
            called = True
            torch._dynamo.mark_dynamic(bias, bias.dim() - 1)
            # other numbers of rows are compiled anew: a step for any number is slower
            with torch._dynamo.config.patch(automatic_dynamic_shapes=False):
                drawn = run(bias, code_R, uniform_R)
            unchecked.enter_context(torch.compiler.set_stance("default", skip_guard_eval_unsafe=True))
            return drawn

        yield checked


def captured(step: Step, buffers: StepBuffers, code_R: torch.Tensor, uniform_R: torch.Tensor) -> Step:
    """The same step as a CUDA graph: one launch instead of one for every operation.

    Args:
        step: Reads and writes ``buffers``.
        buffers: What it works on; they are left as they were.
        code_R: Codes like those it will be given.
        uniform_R: Numbers like those it will be given.
    """
    code_R, uniform_R = code_R.clone(), uniform_R.clone()
    slot_1 = buffers.slot_1.clone()
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        step(code_R, uniform_R)  # libraries set themselves up on first use, which cannot be captured
    torch.cuda.current_stream().wait_stream(side)
    # what the trial wrote into its slot is overwritten by the first real step
    buffers.slot_1.copy_(slot_1)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        drawn_R, logp_R = step(code_R, uniform_R)

    def replay(given_R: torch.Tensor, at_R: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        code_R.copy_(given_R)
        uniform_R.copy_(at_R)
        graph.replay()
        return drawn_R.clone(), logp_R.clone()

    return replay


def shared_rows(rows: int) -> int:
    """How many rows a compiled step for ``rows`` has: the next power of two, or multiple of 16."""
    return 1 << (rows - 1).bit_length() if rows <= 16 else -(-rows // 16) * 16


def shared_length(tokens: int) -> int:
    """For prompts of how many tokens a compiled step for ``tokens`` has room."""
    return -(-tokens // SLOTS) * SLOTS


def _with_room(filled_PHLD: torch.Tensor, row_R: torch.Tensor, room: int) -> torch.Tensor:
    _, heads, length, width = filled_PHLD.shape
    buffer_RHSD = filled_PHLD.new_zeros(len(row_R), heads, length + room, width)
    buffer_RHSD[:, :, :length] = filled_PHLD[row_R]
    return buffer_RHSD
