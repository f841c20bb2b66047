"""Load an Emu3 checkpoint, and check that its processor belongs to its weights."""

from __future__ import annotations

from typing import Any

from unigap.models.files.pretrained import load_family
from unigap.models.files.tokens import check_tokens

NO_TEMPLATE = "BAAI/Emu3-Gen-hf has none either; copy chat_template.jinja of BAAI/Emu3-Chat-hf into a folder of it"
"""What to do if the checkpoint has no chat template."""


def emu3_from_folder(checkpoint: str, dtype: str, attn_implementation: str, device: str) -> tuple[Any, Any]:
    """Load an ``Emu3ForConditionalGeneration`` in eval mode, and its processor.

    Raises:
        ValueError: The folder is not a sound Emu3 checkpoint (names the folder and the fault), or an option cannot be
            honoured.
    """
    from transformers import Emu3ForConditionalGeneration

    network = Emu3ForConditionalGeneration
    net, processor = load_family(network, "Emu3", NO_TEMPLATE, checkpoint, dtype, attn_implementation, device)
    check_emu3_tokens(checkpoint, net, processor)
    return net, processor


def check_emu3_tokens(checkpoint: str, net: Any, processor: Any) -> None:
    """Check that config and tokenizer hold every image code under the same token id.

    Raises:
        ValueError: A code is missing or has two ids, or see ``check_tokens``.
    """
    marks = [processor.image_token, processor.image_start_token, processor.image_end_token]
    check_tokens(checkpoint, processor.tokenizer, net.get_input_embeddings().num_embeddings, marks)
    codes = (f"<|visual token {code:06d}|>" for code in range(net.config.vq_config.codebook_size))
    id_in_config, id_in_tokenizer = net.config.vocabulary_map, processor.tokenizer.get_vocab()
    tokens = ["<|extra_200|>", *codes]
    missing = next((token for token in tokens if token not in id_in_config), None)
    if missing:
        raise ValueError(f"checkpoint {checkpoint!r}: the vocabulary map has no {missing!r}; download it anew")
    other = next((t for t in tokens if id_in_config[t] != id_in_tokenizer.get(t, id_in_config[t])), None)
    if other:
        raise ValueError(
            f"checkpoint {checkpoint!r}: {other!r} is {id_in_config[other]} in config.json's vocabulary map and "
            f"{id_in_tokenizer[other]} in tokenizer.json; take both files of one checkpoint"
        )
