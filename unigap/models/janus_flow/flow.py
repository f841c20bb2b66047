"""Rectified flow over latent tokens: settings, and the velocity given a prompt."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from unigap.models.base import PromptBatch
from unigap.models.engine.attention import additive, causal, positions, run_trunk
from unigap.models.engine.patches import patched, unpatched
from unigap.models.engine.prompt_cache import PromptCache
from unigap.models.engine.rectified_flow import noises
from unigap.models.engine.shared_prompt import masked_image_states
from unigap.models.janus_flow.network import JanusFlowNetwork

# Shape legend: B prompts, P prompts that run (B, or 2B with guidance: null prompts second), R images (those of one
# prompt are consecutive), G rows of a pass (R, or 2R with guidance), L prompt tokens, M latent tokens of an image,
# C numbers of a latent token, T = 1 + M input tokens of an image, S = L + T, D hidden width, E width of a feature map.

TIME_SCALE = 1000.0
"""The network is told the time from noise to image, multiplied by this."""


@dataclass(frozen=True)
class FlowSettings:
    """How images are sampled, and how given images are measured; the defaults are the authors'.

    Args:
        steps: Euler steps from noise to image, >= 1.
        likelihood_draws: Times and noises averaged over if no seeds are given, >= 1. Each costs a forward pass.

    Raises:
        ValueError: A value is out of range.
    """

    steps: int = 30
    likelihood_draws: int = 4

    def __post_init__(self) -> None:
        for name in ("steps", "likelihood_draws"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be >= 1, got {getattr(self, name)}")

    def times(self) -> torch.Tensor:
        """Return the times of sampling from 1 to 0, float64 (steps + 1,)."""
        return 1 - torch.arange(self.steps + 1, dtype=torch.float64) / self.steps


@dataclass(frozen=True)
class Context:
    """Prompts that images attend to.

    Attributes:
        cache: Keys and values of the prompts, one row per row of a pass.
        bias_G1TS: Additive mask of the image tokens.
        position_GT: Position of each image token.
    """

    cache: PromptCache
    bias_G1TS: torch.Tensor
    position_GT: torch.Tensor


@dataclass(frozen=True)
class Encoded:
    """Latents at a time, on their way through the language model.

    Attributes:
        embeds_RTD: Input embeddings: the time, then the latents.
        skip_REhw: The encoder's feature map.
        time_RD: Embedding of the time.
    """

    embeds_RTD: torch.Tensor
    skip_REhw: torch.Tensor
    time_RD: torch.Tensor


class ImageFlow:
    """Flow of the latents of images of one size.

    Times go from 0 (image) to 1 (noise) as in all of unigap, and the velocity is noise minus image. The authors' time
    goes from noise to image, and their velocity has the opposite sign.

    Args:
        net: The network.
        pad: Id of the pad token, to which no token attends; prompts do not hold it, and null prompts do.
        rows: Latent tokens per column of an image.
        columns: Latent tokens per row of an image.
    """

    def __init__(self, net: JanusFlowNetwork, pad: int, rows: int, columns: int) -> None:
        self.net, self.pad, self.grid = net, pad, (rows, columns)
        patch, channels = net.shape.patch, net.shape.channels
        self.shape: tuple[int, int] = (rows * columns, patch**2 * channels)
        self._latent_shape = (channels, rows * patch, columns * patch)

    @property
    def device(self) -> torch.device:
        """Device of the network."""
        return self.net.device

    def noises(self, seeds_R: torch.Tensor) -> torch.Tensor:
        """Return the noise that images start from, float32 (R, M, C), in the order of the authors' latents."""
        return patched(noises(seeds_R, self._latent_shape), self.net.shape.patch).to(self.device)

    def context(self, ids_PL: torch.Tensor, mask_PL: torch.Tensor, images: int) -> Context:
        """Run prompts once, for ``images`` consecutive rows each."""
        llm, tokens = self.net.language_model.model, 1 + self.shape[0]
        embeds_PLD, visible_PL = self.net.embed(ids_PL), self._visible(ids_PL, mask_PL)
        bias_P1LL = additive(causal(visible_PL), embeds_PLD.dtype)
        out = run_trunk(llm, embeds_PLD, bias_P1LL, positions(mask_PL), use_cache=True)
        row_G = torch.arange(len(ids_PL), device=ids_PL.device).repeat_interleave(images)
        ones_TT = torch.ones(tokens, tokens, dtype=torch.bool, device=ids_PL.device).tril()
        prompt_PTL = visible_PL.bool()[:, None].expand(-1, tokens, -1)
        allowed_PTS = torch.cat([prompt_PTL, ones_TT.expand(len(ids_PL), -1, -1)], 2)
        after_P1 = positions(mask_PL)[:, -1:] + 1
        position_PT = after_P1 + torch.arange(tokens, device=ids_PL.device)
        bias_G1TS = additive(allowed_PTS[row_G, None], embeds_PLD.dtype)
        return Context(PromptCache(out.past_key_values, row_G), bias_G1TS, position_PT[row_G])

    def velocities(self, latents_RMC: torch.Tensor, time_R: torch.Tensor, context: Context) -> torch.Tensor:
        """Return the velocity from image to noise, float32 (G, M, C), given prompts that ran before.

        Args:
            latents_RMC: Latents at their times.
            time_R: Times in [0, 1].
            context: Prompts of the images; with null prompts in a second half, each image runs with both.
        """
        encoded = self._encode(latents_RMC, time_R)
        halves = len(context.position_GT) // len(latents_RMC)
        out = self.net.language_model.model(
            inputs_embeds=encoded.embeds_RTD.repeat(halves, 1, 1),
            attention_mask=context.bias_G1TS,
            position_ids=context.position_GT,
            past_key_values=context.cache,
            use_cache=True,
        )
        return self._decode(out.last_hidden_state, encoded, halves)

    def velocity_given(
        self, prompt: PromptBatch, images: int, latents_RMC: torch.Tensor, time_R: torch.Tensor
    ) -> torch.Tensor:
        """Return the velocity from image to noise, float32 (R, M, C), differentiable.

        Args:
            prompt: B prompts.
            images: R / B.
            latents_RMC: Latents at their times.
            time_R: Times in [0, 1].
        """
        encoded, llm = self._encode(latents_RMC, time_R), self.net.language_model.model
        text_BLD = self.net.embed(prompt.ids_BL)
        visible_BL = self._visible(prompt.ids_BL, prompt.mask_BL)
        hidden = masked_image_states(llm, visible_BL, text_BLD, encoded.embeds_RTD)
        return self._decode(hidden, encoded, 1)

    def _visible(self, ids_PL: torch.Tensor, mask_PL: torch.Tensor) -> torch.Tensor:
        """Return 1 for the tokens that others attend to."""
        return mask_PL * (ids_PL != self.pad)

    def _encode(self, latents_RMC: torch.Tensor, time_R: torch.Tensor) -> Encoded:
        net = self.net
        latents_RCHW = unpatched(latents_RMC.to(net.dtype), *self.grid, net.shape.patch)
        # in float64, because the fastest feature turns by a radian in a thousandth
        from_noise_R = (TIME_SCALE * (1 - time_R.double())).float()
        skip_REhw, time_RD = net.vision_gen_enc_model(latents_RCHW, from_noise_R)
        image_RMD = net.vision_gen_enc_aligner(skip_REhw.flatten(2).transpose(1, 2))
        return Encoded(torch.cat([time_RD[:, None], image_RMD], 1), skip_REhw, time_RD)

    def _decode(self, hidden: torch.Tensor, encoded: Encoded, halves: int) -> torch.Tensor:
        """Return the velocity given hidden states, the last M of which are those of the latents."""
        net = self.net
        hidden_GMD = net.vision_gen_dec_aligner_norm(hidden[:, -self.shape[0] :])
        map_GEhw = net.vision_gen_dec_aligner(hidden_GMD).transpose(1, 2).unflatten(2, self.grid)
        skip, time = encoded.skip_REhw.repeat(halves, 1, 1, 1), encoded.time_RD.repeat(halves, 1)
        return -patched(net.vision_gen_dec_model(map_GEhw, skip, time), net.shape.patch).float()
