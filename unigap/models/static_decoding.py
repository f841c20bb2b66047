"""Token-by-token decoding on buffers whose shapes never change, so that one step can be compiled or captured."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional as F

# Shape legend: P prompts that are prefilled, R rows that are decoded, L prompt tokens, S slots (prompt and room),
# H heads, D head or hidden width.

ROWS, SLOTS = 16, 16
"""Compiled steps are shared by all batches of up to the next so many rows, and prompts of up to so many tokens."""


class StepBuffers:
    """Keys, values and mask of R rows that are decoded side by side.

    transformers' attention layers take it as their ``past_key_values``.

    Args:
        prefilled: transformers' cache after the prompts.
        mask_PL: 1 for tokens of a prompt, 0 for its padding.
        row_R: The prompt that each row continues: a prompt is prefilled once, however many rows continue it.
        room: Steps to make room for.
    """

    def __init__(self, prefilled: Any, mask_PL: torch.Tensor, row_R: torch.Tensor, room: int) -> None:
        self.keys = [_with_room(layer.keys, row_R, room) for layer in prefilled.layers]
        self.values = [_with_room(layer.values, row_R, room) for layer in prefilled.layers]
        # slots that are not written yet are closed, each is opened by its step
        seen_RS = F.pad(mask_PL[row_R].bool(), (0, room))
        bias_RS = torch.zeros(seen_RS.shape, dtype=self.keys[0].dtype, device=seen_RS.device)
        self.bias_R11S = bias_RS.masked_fill(~seen_RS, torch.finfo(bias_RS.dtype).min)[:, None, None]
        self.position_R1 = seen_RS.sum(1, keepdim=True)
        self.slot_1 = torch.tensor([mask_PL.shape[1]], device=mask_PL.device)

    def update(self, key_RH1D: torch.Tensor, value_RH1D: torch.Tensor, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Writes the token's key and value into its slot and gives back all of the layer's."""
        keys, values = self.keys[layer], self.values[layer]
        keys.index_copy_(2, self.slot_1, key_RH1D)
        values.index_copy_(2, self.slot_1, value_RH1D)
        return keys, values


def step_trunk(llm: Any, embeds_R1D: torch.Tensor, buffers: StepBuffers) -> torch.Tensor:
    """One token of each row through a Llama-like trunk, hidden states (R, D); the buffers move on by one slot.

    It calls the layers themselves: the trunk's own ``forward`` builds a mask and wraps its outputs anew for each token.
    """
    buffers.bias_R11S.index_fill_(-1, buffers.slot_1, 0)
    rotary = llm.rotary_emb(embeds_R1D, buffers.position_R1)
    hidden_R1D = embeds_R1D
    for layer in llm.layers:
        hidden_R1D = layer(
            hidden_R1D,
            attention_mask=buffers.bias_R11S,
            position_embeddings=rotary,
            past_key_values=buffers,
            use_cache=True,
        )
    buffers.slot_1.add_(1)
    buffers.position_R1.add_(1)
    return llm.norm(hidden_R1D)[:, 0]


def captured(step: Callable[[torch.Tensor], torch.Tensor], buffers: StepBuffers, rows: int) -> Callable[..., Any]:
    """The same step as a CUDA graph: one launch instead of one for every operation.

    Args:
        step: Takes codes (rows,) and gives logits; reads and writes ``buffers``.
        buffers: What it works on; they are left as they were.
        rows: Number of codes.

    Returns:
        The step; its logits are overwritten by the next call.
    """
    code_R = torch.zeros(rows, dtype=torch.int64, device=buffers.slot_1.device)
    slot_1, position_R1 = buffers.slot_1.clone(), buffers.position_R1.clone()
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        step(code_R)  # libraries set themselves up on first use, which cannot be captured
    torch.cuda.current_stream().wait_stream(side)
    # what the trial wrote into its slot is overwritten by the first real step
    buffers.slot_1.copy_(slot_1)
    buffers.position_R1.copy_(position_R1)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        logits = step(code_R)

    def replay(drawn_R: torch.Tensor) -> torch.Tensor:
        code_R.copy_(drawn_R)
        graph.replay()
        return logits

    return replay


def bucket(size: int, of: int) -> int:
    """The next multiple, so that few shapes have to be compiled."""
    return -(-size // of) * of


def _with_room(filled_PHLD: torch.Tensor, row_R: torch.Tensor, room: int) -> torch.Tensor:
    _, heads, length, width = filled_PHLD.shape
    buffer_RHSD = filled_PHLD.new_zeros(len(row_R), heads, length + room, width)
    buffer_RHSD[:, :, :length] = filled_PHLD[row_R]
    return buffer_RHSD
