"""Tokenizer for any text: one token for each byte, and the special tokens of a family."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

SPACE = "\u0120"
"""A space, as byte-level tokenizers write it."""


def byte_tokenizer(
    marks: Sequence[str], named: Mapping[str, str], first: str = "", words: Sequence[str] = ("yes", "no")
) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer.

    Args:
        marks: Special tokens.
        named: Those with a name that a processor asks for, by the name: ``pad_token``, ``image_token``, ...
        first: The mark it puts before every text, if any.
        words: Words that are one token, with a space before them and without.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {piece: number for number, piece in enumerate(alphabet)}
    merges: list[tuple[str, str]] = []
    for word in words:
        for left, right in [*((word[:end], word[end]) for end in range(1, len(word))), (SPACE, word)]:
            merges.append((left, right))
            vocabulary[left + right] = len(vocabulary)
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens([AddedToken(mark, special=True) for mark in marks])
    if first:
        core.post_processor = processors.TemplateProcessing(
            f"{first} $A", special_tokens=[(first, core.token_to_id(first))]
        )
    usual = {name: mark for name, mark in named.items() if name in ("pad_token", "bos_token", "eos_token")}
    own = {name: mark for name, mark in named.items() if name not in usual}
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        extra_special_tokens=own,
        padding_side="left",
        clean_up_tokenization_spaces=False,
        **usual,
    )
