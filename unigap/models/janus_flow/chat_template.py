"""What Janus's chat template needs to know of a JanusFlow checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

IMAGE, IMAGE_START, IMAGE_END = "<image_placeholder>", "<begin_of_image>", "<end_of_image>"
PAD = "<\uff5c\u2581pad\u2581\uff5c>"
"""Special tokens that the authors' processor looks up."""


@dataclass(frozen=True)
class ImageScaling:
    """How pixels enter the vision encoder, in the form of transformers' image processors.

    Attributes:
        size: Height and width, in pixels.
        image_mean: Mean of each channel of pixels in [0, 1].
        image_std: Standard deviation of each channel.
    """

    size: dict[str, int]
    image_mean: Sequence[float]
    image_std: Sequence[float]


@dataclass(frozen=True)
class JanusFlowProcessor:
    """Stand-in for transformers' ``JanusProcessor``, which ``JanusChatTemplate`` reads.

    Attributes:
        tokenizer: The tokenizer.
        image_processor: How pixels enter the vision encoder.
        num_image_tokens: Tokens of an image that is read or generated.
        use_default_system_prompt: Whether questions begin with Janus's system prompt, as in the authors' code.
    """

    tokenizer: Any
    image_processor: ImageScaling
    num_image_tokens: int
    use_default_system_prompt: bool = True
    image_token: str = IMAGE
    image_start_token: str = IMAGE_START
    image_end_token: str = IMAGE_END

    def apply_chat_template(self, messages: Sequence[dict[str, Any]], add_generation_prompt: bool) -> str:
        """Return one message of a user, and the beginning of the answer, with the roles of JanusFlow."""
        assert add_generation_prompt and len(messages) == 1
        parts = [part.get("text", self.image_token + "\n") for part in messages[0]["content"]]
        return f"User: {''.join(parts).strip()}\n\nAssistant:"
