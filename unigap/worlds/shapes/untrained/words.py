"""The words that every untrained model knows, and a tokenizer to which each is one token."""

from __future__ import annotations

from collections.abc import Sequence

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

PAD, BOS, EOS, UNK = "<pad>", "<s>", "</s>", "<unk>"
SPEECH = (":", "\n", "?", ".", "does", "this", "image", "describe", "show", "is", "what", "it", "yes", "no", "in")
"""What is said about pictures, beside what the grammar says of what they show."""


def word_tokenizer(words: Sequence[str], unknown: str = UNK) -> Tokenizer:
    """A tokenizer that knows these words, in the order of their ids; upper case is read as lower case."""
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token=unknown))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[a-z]+|[^a-z ]"), behavior="removed", invert=True)
    return tokenizer
