"""Sample images with VILA-U: the trunk runs once a position, the depth transformer once a code."""

from __future__ import annotations

import torch

from unigap.models.base import PromptBatch, Samples, SamplingRecipe
from unigap.models.engine.attention import additive, causal, positions, run_trunk
from unigap.models.engine.autoregressive import Sampled, sample_codes, sample_next, samples_of, uniforms
from unigap.models.engine.static_decoding import DecodingCache, step_trunk
from unigap.models.vila_u.network import VilaUNetwork

# Shape legend: B prompts, N candidates a prompt, P prefilled prompts (B, or 2B with guidance: null prompts second),
# L prompt tokens, M positions of an image, D codes of a position, I = M * D codes of an image, V codes, C width of a
# code vector, H width of the trunk, R rows of candidates, G decoded rows (R, or 2R with guidance).


class VilaUSampler:
    """Generation branch of VILA-U.

    Args:
        net: The network, in eval mode.
    """

    def __init__(self, net: VilaUNetwork) -> None:
        self.net = net

    @torch.no_grad()
    def sample(self, prompt: PromptBatch, seeds_BN: torch.Tensor, recipe: SamplingRecipe) -> Samples:
        """Sample N images per prompt."""
        batch, n = seeds_BN.shape
        guided, (places, depth) = recipe.cfg != 1, self.net.shape.code_shape
        ids_PL, mask_PL = prompt.to_prefill(guided)
        row_R = torch.arange(batch, device=ids_PL.device).repeat_interleave(n)
        row_G = torch.cat([row_R, row_R + batch]) if guided else row_R
        uniform_RI = uniforms(seeds_BN.flatten(), places * depth).to(ids_PL.device)

        llm, embeds_PLH = self.net.llm.model, self.net.embed(ids_PL)
        bias_P1LL = additive(causal(mask_PL), embeds_PLH.dtype)
        out = run_trunk(llm, embeds_PLH, bias_P1LL, positions(mask_PL), use_cache=True)
        # the last position is no input
        cache = DecodingCache(llm.rotary_emb, out.past_key_values, mask_PL, row_G, places - 1, fixed=False)
        code = CodeByCode(self.net, cache, recipe)
        first_GV = code.at_next_position(out.last_hidden_state[:, -1][row_G])
        samples = samples_of(sample_codes(first_GV, code.step, uniform_RI, recipe), batch, n)
        drawings_BNMD = samples.drawings_BN.view(batch, n, places, depth)
        return Samples(drawings_BNMD, samples.logp_BNM, samples.behaviour_BNM)


class CodeByCode:
    """State of sampling: the codes of the present position.

    Args:
        net: The network.
        cache: KV cache of the trunk.
        recipe: Temperature, guidance and filters.
    """

    def __init__(self, net: VilaUNetwork, cache: DecodingCache, recipe: SamplingRecipe) -> None:
        self.net, self.cache, self.recipe = net, cache, recipe
        self.passes = 1 if recipe.cfg == 1 else 2

    def at_next_position(self, hidden_GH: torch.Tensor) -> torch.Tensor:
        """Begin a position and return the logits (G, V) of its first code."""
        self.sum_RC = torch.zeros((), device=hidden_GH.device)
        logits_GV, self.inner = self.net.depth_transformer.first(hidden_GH)
        return logits_GV

    def step(self, code_R: torch.Tensor, uniform_R: torch.Tensor) -> Sampled:
        """Return the next codes and their log-probabilities, given the last codes and uniform numbers."""
        depth = self.inner.length
        self.sum_RC = self.sum_RC + self.net.image_tokenizer.quantizer.table(depth - 1)[code_R]
        if depth < self.net.shape.tokenizer.depth:
            logits_GV = self.net.depth_transformer.following(self.sum_RC.repeat(self.passes, 1), self.inner)
        else:
            embeds_G1H = self.net.mm_projector(self.sum_RC)[:, None].repeat(self.passes, 1, 1)
            hidden_GH = step_trunk(self.net.llm.model, embeds_G1H, self.cache, self.cache.next_bias())
            logits_GV = self.at_next_position(hidden_GH)
        return sample_next(logits_GV, uniform_R, self.recipe)
