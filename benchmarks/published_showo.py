"""Create random tensors in the published layout of Show-o and its image tokenizer, as in their public code."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch

from unigap.models.showo.network import ShowOShape


def published(shape: ShowOShape) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield names and shapes of the tensors of ``showlab/show-o`` and ``showlab/magvitv2``, from their public code."""
    llm, magvit = shape.llm, shape.magvit
    width, inner, head = llm.hidden_size, llm.intermediate_size, llm.hidden_size // llm.num_attention_heads

    def both(name: str, *size: int) -> Iterator[tuple[str, tuple[int, ...]]]:
        yield f"{name}.weight", size
        yield f"{name}.bias", size[:1]

    yield "showo.model.embed_tokens.weight", (llm.vocab_size, width)
    for layer in range(llm.num_hidden_layers):
        at = f"showo.model.layers.{layer}"
        for part in ("q_proj", "k_proj", "v_proj", "dense"):
            yield from both(f"{at}.self_attn.{part}", width, width)
        for part in ("q_layernorm", "k_layernorm"):
            yield from both(f"{at}.self_attn.{part}", head)
        yield from both(f"{at}.mlp.fc1", inner, width)
        yield from both(f"{at}.mlp.fc2", width, inner)
        yield from both(f"{at}.input_layernorm", width)
    yield from both("showo.model.final_layernorm", width)
    yield from both("showo.lm_head", llm.vocab_size, width)

    bits = magvit.bits
    yield "quantize.embedding", (2**bits, bits)
    yield "quantize.power_vals", (bits,)

    def block(name: str, entering: int, leaving: int) -> Iterator[tuple[str, tuple[int, ...]]]:
        yield from both(f"{name}.norm1", entering)
        yield from both(f"{name}.conv1", leaving, entering, 3, 3)
        yield from both(f"{name}.norm2", leaving)
        yield from both(f"{name}.conv2", leaving, leaving, 3, 3)
        if entering != leaving:
            yield from both(f"{name}.nin_shortcut", leaving, entering, 1, 1)

    halves = (
        ("encoder", "down", "downsample", magvit.encoder_widths, magvit.encoder_blocks),
        ("decoder", "up", "upsample", magvit.decoder_widths, magvit.decoder_blocks),
    )
    for half, way, change, multiples, blocks in halves:
        widths = [magvit.channels * multiple for multiple in multiples]
        encoding, coarsest = half == "encoder", len(widths) - 1
        yield from both(f"{half}.conv_in", *((magvit.channels, 3) if encoding else (widths[-1], bits)), 3, 3)
        for level, leaving in enumerate(widths):
            before = [magvit.channels, *widths][level] if encoding else [*widths, widths[-1]][level + 1]
            for number in range(blocks[level]):
                yield from block(f"{half}.{way}.{level}.block.{number}", leaving if number else before, leaving)
            if level != (coarsest if encoding else 0):
                yield from both(f"{half}.{way}.{level}.{change}.conv", leaving, leaving, 3, 3)
        for part in ("block_1", "block_2"):
            yield from block(f"{half}.mid.{part}", widths[-1], widths[-1])
        yield from both(f"{half}.mid.attn_1.norm", widths[-1])
        for part in ("q", "k", "v", "proj_out"):
            yield from both(f"{half}.mid.attn_1.{part}", widths[-1], widths[-1], 1, 1)
        last = widths[-1] if encoding else widths[0]
        yield from both(f"{half}.norm_out", last)
        yield from both(f"{half}.conv_out", bits if encoding else 3, last, 3, 3)
        yield from both(f"{half}.{'quant_conv' if encoding else 'post_quant_conv'}", bits, bits, 1, 1)


def random_published(shape: ShowOShape) -> dict[str, torch.Tensor]:
    """Return random tensors by their published names, with the tables of the quantiser."""
    generator = torch.Generator().manual_seed(3)
    state = {}
    for name, size in published(shape):
        scale = 1 / math.sqrt(math.prod(size[1:])) if len(size) > 1 else 0.2
        state[name] = torch.randn(size, generator=generator) * scale + ("norm" in name and name.endswith("weight"))
    code, place = torch.arange(2**shape.magvit.bits), torch.arange(shape.magvit.bits - 1, -1, -1)
    return state | {"quantize.embedding": (code[:, None] >> place & 1) * 2.0 - 1, "quantize.power_vals": 2**place}
