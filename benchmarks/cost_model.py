"""Cost model of the self-improvement of a Janus: tokens, floating-point operations and bytes.

A multiply-add counts as two operations. Attention is counted over all pairs of positions, as in a kernel that does not
use causality. Elementwise operations are not counted.
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
VOCABULARY = 102_400


def janus_pro(size: str) -> JanusConfig:
    """Return the configuration of Janus-Pro, ``1B`` or ``7B``."""
    trunk = TRUNKS[size]
    width = trunk["hidden_size"]
    return JanusConfig(
        text_config=LlamaConfig(vocab_size=VOCABULARY, max_position_embeddings=16_384, **trunk),
        vision_config=JanusVisionConfig(projection_dim=width),
        vq_config=JanusVQVAEConfig(projection_dim=width, image_token_embed_dim=width),
        tie_word_embeddings=False,
    )


@dataclass(frozen=True)
class Costs:
    """Costs of one model.

    Attributes:
        config: The model's configuration.
        prompt: Tokens of a prompt with its chat template.
        question: Tokens of a question with its chat template, without those of the image.
    """

    config: Any
    prompt: int = 32
    question: int = 64

    @property
    def image(self) -> int:
        """Tokens of an image, the same for generation and understanding."""
        return self.config.vision_config.num_image_tokens

    @property
    def matrices(self) -> int:
        """Weights of the shared LLM's linear layers."""
        text = self.config.text_config
        attention = 2 * text.hidden_size * text.head_dim * (text.num_attention_heads + text.num_key_value_heads)
        return text.num_hidden_layers * (attention + 3 * text.hidden_size * text.intermediate_size)

    @property
    def trained(self) -> int:
        """Trainable weights: the shared LLM's linear layers and norms."""
        text = self.config.text_config
        return self.matrices + (2 * text.num_hidden_layers + 1) * text.hidden_size

    @property
    def head(self) -> int:
        """Weights of the generation head, from a hidden state to the logits of the image codes."""
        vq = self.config.vq_config
        return vq.image_token_embed_dim * vq.projection_dim + vq.projection_dim * vq.num_embeddings

    @property
    def aligner(self) -> int:
        """Weights of the generation aligner, from a code's embedding to the shared LLM's input."""
        vq = self.config.vq_config
        return vq.embed_dim * vq.projection_dim + (vq.num_hidden_layers - 1) * vq.projection_dim**2

    def trunk(self, tokens: int, seen: int) -> int:
        """Return the operations of a forward pass of ``tokens``, each of which attends to ``seen`` tokens."""
        text = self.config.text_config
        pairs = tokens * seen * text.num_attention_heads * text.head_dim
        return 2 * tokens * self.matrices + 4 * pairs * text.num_hidden_layers

    def sample(self, prompts: int, candidates: int, guided: bool = True, fixed: bool = False) -> int:
        """Return the operations of sampling ``candidates`` for each of ``prompts``, without the decoder.

        Args:
            prompts: Prompts in a batch.
            candidates: Images per prompt.
            guided: Whether a null prompt is sampled with each prompt.
            fixed: Whether attention reads the cache slots of the whole image at each step, as captured steps do.
        """
        prefilled = prompts * (1 + guided)
        rows = prompts * candidates
        slots = self.prompt + self.image - 1
        total = self.trunk(prefilled * self.prompt, self.prompt) + 2 * prefilled * self.head
        for step in range(1, self.image):
            total += self.trunk(rows * (1 + guided), slots if fixed else self.prompt + step)
            total += 2 * rows * ((1 + guided) * self.head + self.aligner)
        return total

    def judge(self, images: int) -> int:
        """Return the operations of answering one question about each of ``images``."""
        vision, text = self.config.vision_config, self.config.text_config
        width, patches = vision.hidden_size, (vision.image_size // vision.patch_size) ** 2
        matrices = vision.num_hidden_layers * (4 + 2 * vision.mlp_ratio) * width**2
        aligner = width * vision.projection_dim + (vision.depth - 1) * vision.projection_dim**2
        patch = vision.num_channels * vision.patch_size**2 * width
        encoder = 2 * patches * (patch + matrices + aligner) + 4 * patches**2 * width * vision.num_hidden_layers
        tokens = self.image + self.question
        return images * int(encoder + self.trunk(tokens, tokens) + 2 * text.hidden_size * text.vocab_size)

    def train(self, rows: int, recompute: bool = False) -> int:
        """Return the operations of a forward and backward pass of the image likelihood of ``rows``.

        Args:
            rows: Images in the batch.
            recompute: Whether the shared LLM's activations are recomputed (gradient checkpointing).
        """
        tokens = self.prompt + self.image - 1
        # the head is frozen, so only the gradient of its input is computed
        heads = 2 * 2 * self.image * self.head + 2 * (self.image - 1) * self.aligner
        return rows * ((3 + recompute) * self.trunk(tokens, tokens) + heads)

    def learn_online(self, rows: int, guided: bool = True, reference: bool = True, recompute: bool = False) -> int:
        """Return the operations of a policy-gradient step on ``rows`` images.

        Args:
            rows: Images in the batch.
            guided: Whether the likelihood is that of guided sampling, which takes a second pass with the null prompt.
            reference: Whether the reference model scores the images too.
            recompute: As in ``train``.
        """
        passes, tokens = rows * (1 + guided), self.prompt + self.image - 1
        scored = self.trunk(tokens, tokens) + 2 * self.image * self.head + 2 * (self.image - 1) * self.aligner
        # the aligner embeds the codes once for both passes
        saved = rows * guided * 2 * (self.image - 1) * self.aligner
        return self.train(passes, recompute) - saved + (passes * scored - saved) * reference

    def decode(self, images: int) -> int:
        """Return the operations of decoding the codes of ``images`` to pixels."""
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
        """Return the bytes of the KV cache of ``rows``, with one spare slot; a guided image takes two rows."""
        text = self.config.text_config
        token = 2 * text.num_hidden_layers * text.num_key_value_heads * text.head_dim * itemsize
        return rows * (self.prompt + self.image) * token
