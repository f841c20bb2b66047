"""Plain loops of the published sampling algorithms of flows: one image at a time, with stock classes only.

They follow the authors' code. That of BAGEL encodes a prompt once and keeps its keys and values; that of JanusFlow
encodes the prompt in every step.
"""

from __future__ import annotations

import itertools

import torch

from unigap.models.bagel import Bagel
from unigap.models.engine.patches import patched
from unigap.models.janus_flow import JanusFlow


@torch.no_grad()
def bagel_image(model: Bagel, text: str, seed: int, cfg: float) -> torch.Tensor:
    """Sample one image as BAGEL's ``generate_image`` does, latents (M, C)."""
    flow, settings = model._flow, model._settings
    context = flow.context(model.encode_prompt([text]), 1)
    latents_MC = torch.randn(flow.shape, generator=torch.Generator().manual_seed(seed))
    times = torch.linspace(1, 0, settings.timesteps)
    times = settings.shift * times / (1 + (settings.shift - 1) * times)
    for time, after in itertools.pairwise(times):
        cond_MC = flow.velocity(latents_MC[None], time[None], context)[0]
        if settings.guided_from < time <= settings.guided_until:
            null_MC = flow.velocity(latents_MC[None], time[None], None)[0]
            guided_MC = null_MC + cfg * (cond_MC - null_MC)
            cond_MC = guided_MC * (cond_MC.norm() / (guided_MC.norm() + 1e-8)).clamp(0, 1)
        latents_MC = latents_MC - cond_MC * (time - after)
    return latents_MC


@torch.no_grad()
def janus_flow_image(model: JanusFlow, text: str, seed: int, cfg: float, steps: int) -> torch.Tensor:
    """Sample one image as the ``generate`` of JanusFlow's demo does, latents (M, C)."""
    net, side = model.net, model._flow.grid[0]
    ids = torch.tensor([model._template.prompt_ids(text)] * 2)
    ids[1, 1:] = model._flow.pad
    prompt = net.embed(ids)[:, :-1]
    mask = torch.ones(2, prompt.shape[1] + 1 + side**2, dtype=torch.int64)
    mask[1, 1 : prompt.shape[1]] = 0
    latents = torch.randn(1, 4, 2 * side, 2 * side, generator=torch.Generator().manual_seed(seed))
    for step in range(steps):
        both, time = torch.cat([latents, latents]), torch.full((2,), step / steps * 1000)
        encoded, time_embed = net.vision_gen_enc_model(both, time)
        image = net.vision_gen_enc_aligner(encoded.flatten(2).transpose(1, 2))
        inputs = torch.cat([prompt, time_embed[:, None], image], 1)
        # the demo does not count positions by the mask
        positions = torch.arange(inputs.shape[1])[None]
        out = net.language_model.model(inputs_embeds=inputs, attention_mask=mask, position_ids=positions)
        hidden = net.vision_gen_dec_aligner(net.vision_gen_dec_aligner_norm(out.last_hidden_state[:, -(side**2) :]))
        grid = hidden.reshape(2, side, side, -1).permute(0, 3, 1, 2)
        cond, null = net.vision_gen_dec_model(grid, encoded, time_embed).chunk(2)
        latents = latents + (cfg * cond - (cfg - 1) * null) / steps
    return patched(latents, 2)[0]
