"""Load a Janus checkpoint, and check that its processor belongs to its weights."""

from __future__ import annotations

from typing import Any

from unigap.models.files.pretrained import load_family
from unigap.models.files.tokens import check_tokens

NO_TEMPLATE = "copy chat_template.jinja of deepseek-community/Janus-Pro-1B into a folder of it"
"""What to do if the checkpoint has no chat template."""


def janus_from_folder(checkpoint: str, dtype: str, attn_implementation: str, device: str) -> tuple[Any, Any]:
    """Load a ``JanusForConditionalGeneration`` in eval mode, and its processor.

    Raises:
        ValueError: The folder is not a sound Janus checkpoint (names the folder and the fault), or an option cannot be
            honoured.
    """
    from transformers import JanusForConditionalGeneration

    network = JanusForConditionalGeneration
    net, processor = load_family(network, "Janus", NO_TEMPLATE, checkpoint, dtype, attn_implementation, device)
    check_janus_tokens(checkpoint, net, processor)
    return net, processor


def check_janus_tokens(checkpoint: str, net: Any, processor: Any) -> None:
    """Check that processor and network agree on the image token and on the number of tokens of an image.

    Raises:
        ValueError: They differ, or see ``check_tokens``.
    """
    marks = [processor.image_token, processor.image_start_token, processor.image_end_token]
    check_tokens(checkpoint, processor.tokenizer, net.get_input_embeddings().num_embeddings, marks)
    image_id = processor.tokenizer.convert_tokens_to_ids(processor.image_token)
    if image_id != net.config.image_token_id:
        raise ValueError(
            f"checkpoint {checkpoint!r}: config.json says image_token_id {net.config.image_token_id}, the tokenizer "
            f"writes an image as {image_id}; take both files of one checkpoint"
        )
    vision, generated = net.config.vision_config, net.config.vq_config.num_patches**2
    encoded = (vision.image_size // vision.patch_size) ** 2
    if not processor.num_image_tokens == encoded == generated:
        raise ValueError(
            f"checkpoint {checkpoint!r}: processor_config.json says num_image_tokens {processor.num_image_tokens}, by "
            f"config.json {encoded} are encoded and {generated} generated; take both files of one checkpoint"
        )
