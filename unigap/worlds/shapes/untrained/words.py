"""The vocabulary shared by all untrained models, and a tokenizer with one token per word."""

from __future__ import annotations

from collections.abc import Sequence

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

PAD, BOS, EOS, UNK = "<pad>", "<s>", "</s>", "<unk>"
SPEECH = (":", "\n", "?", ".", "does", "this", "image", "describe", "show", "is", "what", "it", "yes", "no", "in")
"""Words of questions and answers about images that the grammar of prompts does not have."""


def word_tokenizer(words: Sequence[str], unknown: str = UNK) -> Tokenizer:
    """Return a lower-casing tokenizer of these words, given in the order of their token ids."""
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token=unknown))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[a-z]+|[^a-z ]"), behavior="removed", invert=True)
    return tokenizer
