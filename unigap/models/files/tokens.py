"""Whether a tokenizer and the weights beside it are of one checkpoint, checked when it is loaded."""

from __future__ import annotations

from typing import Any

USED = ("pad_token", "bos_token", "eos_token")
"""Special tokens that prompts, answers and padding are made of."""


def check_tokens(checkpoint: str, tokenizer: Any, embedded: int, image_marks: list[str]) -> None:
    """Make sure that every id the tokenizer gives has an embedding, and that what is padded with is told from an image.

    A pad token that is also the first or the last token of a text is fine: padding is masked by length.

    Args:
        checkpoint: What is loaded.
        tokenizer: Its tokenizer.
        embedded: How many ids have an embedding.
        image_marks: Tokens that stand for an image, its start and its end.

    Raises:
        ValueError: A special token is missing, an id is too large, or padding is a mark of images.
    """
    for name in USED:
        if getattr(tokenizer, f"{name}_id") is None:
            raise ValueError(
                f"checkpoint {checkpoint!r}: tokenizer_config.json names no {name} that tokenizer.json has; name one"
            )
    word, highest = max(tokenizer.get_vocab().items(), key=lambda item: item[1])
    if highest >= embedded:
        raise ValueError(
            f"checkpoint {checkpoint!r}: tokenizer.json gives {word!r} the id {highest}, and the weights embed ids "
            f"below {embedded}; take the tokenizer of these weights"
        )
    if tokenizer.pad_token in image_marks:
        raise ValueError(
            f"checkpoint {checkpoint!r}: tokenizer_config.json pads with {tokenizer.pad_token!r}, a mark of images; "
            "name another pad_token"
        )


def check_janus_tokens(checkpoint: str, net: Any, processor: Any) -> None:
    """Make sure that the processor of a Janus writes an image as its network reads and draws it.

    Raises:
        ValueError: See ``check_tokens``; and where the place of an image, or the number of its tokens, differ.
    """
    marks = [processor.image_token, processor.image_start_token, processor.image_end_token]
    check_tokens(checkpoint, processor.tokenizer, net.get_input_embeddings().num_embeddings, marks)
    place = processor.tokenizer.convert_tokens_to_ids(processor.image_token)
    if place != net.config.image_token_id:
        raise ValueError(
            f"checkpoint {checkpoint!r}: config.json says image_token_id {net.config.image_token_id}, the tokenizer "
            f"writes an image as {place}; take both files of one checkpoint"
        )
    vision, drawn = net.config.vision_config, net.config.vq_config.num_patches**2
    seen = (vision.image_size // vision.patch_size) ** 2
    if not processor.num_image_tokens == seen == drawn:
        raise ValueError(
            f"checkpoint {checkpoint!r}: processor_config.json says num_image_tokens {processor.num_image_tokens}, by "
            f"config.json {seen} are seen and {drawn} drawn; take both files of one checkpoint"
        )


def check_emu3_tokens(checkpoint: str, net: Any, processor: Any) -> None:
    """Make sure that config and tokenizer of an Emu3 name every image code, and number it alike.

    Raises:
        ValueError: See ``check_tokens``; and where a code is missing, or numbered otherwise.
    """
    marks = [processor.image_token, processor.image_start_token, processor.image_end_token]
    check_tokens(checkpoint, processor.tokenizer, net.get_input_embeddings().num_embeddings, marks)
    codes = (f"<|visual token {code:06d}|>" for code in range(net.config.vq_config.codebook_size))
    mapped, ids = net.config.vocabulary_map, processor.tokenizer.get_vocab()
    words = ["<|extra_200|>", *codes]
    missing = next((word for word in words if word not in mapped), None)
    if missing:
        raise ValueError(f"checkpoint {checkpoint!r}: the vocabulary map has no {missing!r}; download it anew")
    other = next((word for word in words if mapped[word] != ids.get(word, mapped[word])), None)
    if other:
        raise ValueError(
            f"checkpoint {checkpoint!r}: {other!r} is {mapped[other]} in config.json's vocabulary map and {ids[other]} "
            "in tokenizer.json; take both files of one checkpoint"
        )
