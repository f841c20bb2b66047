"""What self-improvement of a Janus costs: tokens, floating-point operations, bytes, and from them seconds.

A multiplication with its addition counts as two operations, as everywhere. Attention is counted over all pairs that a
kernel without knowledge of causality looks at. Elementwise work is not counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from transformers import JanusConfig, LlamaConfig
from transformers.models.janus.configuration_janus import JanusVisionConfig, JanusVQVAEConfig

TRUNKS = {
    "1B": {"hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 24, "num_attention_heads": 16},
    "7B": {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 30, "num_attention_heads": 32},
}
WORDS = 102_400


def janus_pro(size: str) -> JanusConfig:
    """The configuration of Janus-Pro, ``1B`` or ``7B``."""
    trunk = TRUNKS[size]
    wide = trunk["hidden_size"]
    return JanusConfig(
        text_config=LlamaConfig(vocab_size=WORDS, max_position_embeddings=16_384, **trunk),
        vision_config=JanusVisionConfig(projection_dim=wide),
        vq_config=JanusVQVAEConfig(projection_dim=wide, image_token_embed_dim=wide),
        tie_word_embeddings=False,
    )


@dataclass(frozen=True)
class Costs:
    """The costs of one model.

    Args:
        config: Its configuration.
        prompt: Tokens of a prompt with its template.
        question: Tokens of a question with its template, beside those of the image.
    """

    config: Any
    prompt: int = 32
    question: int = 64

    @property
    def image(self) -> int:
        """Tokens of an image that is drawn, and of one that is looked at."""
        return self.config.vision_config.num_image_tokens

    @property
    def matrices(self) -> int:
        """Weights of the trunk's linear layers."""
        text = self.config.text_config
        attention = 2 * text.hidden_size * text.head_dim * (text.num_attention_heads + text.num_key_value_heads)
        return text.num_hidden_layers * (attention + 3 * text.hidden_size * text.intermediate_size)

    @property
    def trained(self) -> int:
        """Weights that train: the trunk's linear layers and norms."""
        text = self.config.text_config
        return self.matrices + (2 * text.num_hidden_layers + 1) * text.hidden_size

    @property
    def head(self) -> int:
        """Weights between a hidden state and the logits of the image codes."""
        vq = self.config.vq_config
        return vq.image_token_embed_dim * vq.projection_dim + vq.projection_dim * vq.num_embeddings

    @property
    def aligner(self) -> int:
        """Weights between a code's embedding and the trunk."""
        vq = self.config.vq_config
        return vq.embed_dim * vq.projection_dim + (vq.num_hidden_layers - 1) * vq.projection_dim**2

    def trunk(self, tokens: int, seen: int) -> int:
        """Operations of a forward pass of ``tokens`` that look at ``seen`` tokens each."""
        text = self.config.text_config
        pairs = tokens * seen * text.num_attention_heads * text.head_dim
        return 2 * tokens * self.matrices + 4 * pairs * text.num_hidden_layers

    def draw(self, prompts: int, candidates: int, guided: bool = True, fixed: bool = False) -> int:
        """Operations of drawing ``candidates`` for each of ``prompts``, the decoder not counted.

        Args:
            prompts: Prompts in a batch.
            candidates: Images for each.
            guided: Whether a null prompt is drawn beside each prompt.
            fixed: Whether attention reads the room for the whole image at each step, as captured steps do.
        """
        read = prompts * (1 + guided)
        rows = prompts * candidates
        room = self.prompt + self.image - 1
        total = self.trunk(read * self.prompt, self.prompt) + 2 * read * self.head
        for step in range(1, self.image):
            total += self.trunk(rows * (1 + guided), room if fixed else self.prompt + step)
            total += 2 * rows * ((1 + guided) * self.head + self.aligner)
        return total

    def look(self, images: int) -> int:
        """Operations of asking one question about each of ``images``."""
        vision, text = self.config.vision_config, self.config.text_config
        wide, patches = vision.hidden_size, (vision.image_size // vision.patch_size) ** 2
        matrices = vision.num_hidden_layers * (4 + 2 * vision.mlp_ratio) * wide**2
        aligner = wide * vision.projection_dim + (vision.depth - 1) * vision.projection_dim**2
        patch = vision.num_channels * vision.patch_size**2 * wide
        encoder = 2 * patches * (patch + matrices + aligner) + 4 * patches**2 * wide * vision.num_hidden_layers
        tokens = self.image + self.question
        return images * int(encoder + self.trunk(tokens, tokens) + 2 * text.hidden_size * text.vocab_size)

    def train(self, rows: int, recompute: bool = False) -> int:
        """Operations of a forward and backward pass of the image likelihood of ``rows``.

        Args:
            rows: Images in the batch.
            recompute: Whether the trunk's activations are computed once more (gradient checkpointing).
        """
        tokens = self.prompt + self.image - 1
        # of the frozen head only the gradient of its input is taken
        heads = 2 * 2 * self.image * self.head + 2 * (self.image - 1) * self.aligner
        return rows * ((3 + recompute) * self.trunk(tokens, tokens) + heads)

    def decode(self, images: int) -> int:
        """Operations of turning the codes of ``images`` into pixels."""
        vq = self.config.vq_config
        side = self.config.vision_config.image_size // self.config.vision_config.patch_size
        widths = [vq.base_channels * times for times in vq.channel_multiplier]
        deep = widths[-1]

        def convolution(inside: int, outside: int, area: int, kernel: int = 9) -> int:
            return 2 * kernel * inside * outside * area

        def residual(inside: int, outside: int, area: int) -> int:
            shortcut = convolution(inside, outside, area, 1) if inside != outside else 0
            return convolution(inside, outside, area) + convolution(outside, outside, area) + shortcut

        area = side**2
        attention = 4 * convolution(deep, deep, area, 1) + 4 * area**2 * deep
        total = convolution(vq.embed_dim, vq.latent_channels, area, 1) + convolution(vq.latent_channels, deep, area)
        total += 2 * residual(deep, deep, area) + attention
        inside = deep
        for level, outside in enumerate(reversed(widths)):
            for _ in range(vq.num_res_blocks + 1):
                total += residual(inside, outside, area) + (attention if level == 0 else 0)
                inside = outside
            if level < len(widths) - 1:
                area *= 4
                total += convolution(inside, inside, area)
        return images * (total + convolution(inside, vq.out_channels, area))

    def cache(self, rows: int, itemsize: int = 2) -> int:
        """Bytes of keys and values of ``rows`` that are drawn, one slot spare; a guided image is two rows."""
        text = self.config.text_config
        token = 2 * text.num_hidden_layers * text.num_key_value_heads * text.head_dim * itemsize
        return rows * (self.prompt + self.image) * token
