"""The kernel of a real Janus, as transformers builds it: every method, both heads, trunk and adapters."""

from __future__ import annotations

import pytest
import torch
from small_nets import looped_gradients
from torch import Tensor

import theory

transformers = pytest.importorskip("transformers")

PROMPT, CODES, QUESTION = 5, 4, 9
NEAR = {"rtol": 1e-6, "atol": 1e-6}  # transformers takes eager softmax and RMS norms in float32 whatever the dtype


@pytest.fixture(scope="module")
def janus() -> torch.nn.Module:
    torch.manual_seed(0)
    vision = {
        "hidden_size": 16, "projection_dim": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 8,
        "patch_size": 4, "mlp_ratio": 2.0, "depth": 1,
    }  # fmt: skip
    quantiser = {
        "embed_dim": 4, "num_embeddings": 12, "latent_channels": 4, "base_channels": 32, "channel_multiplier": [1, 1],
        "num_res_blocks": 1, "num_patches": 2, "projection_dim": 16, "image_token_embed_dim": 16,
        "num_hidden_layers": 1,
    }  # fmt: skip
    text = {
        "vocab_size": 20, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 32,
        "tie_word_embeddings": False,
    }  # fmt: skip
    config = transformers.JanusConfig(
        text_config=text, vision_config=vision, vq_config=quantiser, image_token_id=19, tie_word_embeddings=False
    )
    config._attn_implementation = "eager"
    model = transformers.JanusForConditionalGeneration._from_config(config, attn_implementation="eager")
    return model.double().eval()


def image_logp(model: torch.nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """Log-likelihood of image codes after a left-padded prompt."""
    prompt, codes, mask = batch["prompt"], batch["codes"], batch["mask"]
    drawn = model.prepare_embeddings_for_image_generation(codes[:, :-1])
    embeds = torch.cat([model.get_input_embeddings()(prompt), drawn], 1)
    hidden = trunk_states(model, embeds, torch.cat([mask, torch.ones_like(codes[:, :-1])], 1))
    logits = model.model.generation_head(hidden[:, prompt.shape[1] - 1 :])
    return logits.log_softmax(-1).gather(-1, codes[..., None]).sum((1, 2))


def trunk_states(model: torch.nn.Module, embeds: Tensor, mask: Tensor) -> Tensor:
    """Hidden states behind a mask of our own: a padded row of the built-in one softmaxes to NaN in float64."""
    t = mask.shape[1]
    allowed = torch.ones(t, t, dtype=torch.bool).tril() & mask[:, None, :].bool() | torch.eye(t, dtype=torch.bool)
    additive = torch.zeros(allowed.shape, dtype=embeds.dtype).masked_fill(~allowed, -1e9).unsqueeze(1)
    positions = (mask.cumsum(1) - 1).clamp_min(0)
    out = model.model.language_model(
        inputs_embeds=embeds, attention_mask=additive, position_ids=positions, use_cache=False
    )
    return out.last_hidden_state


def answer_logp(model: torch.nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """Log-probability of an answer after a question."""
    question = batch["question"]
    hidden = trunk_states(model, model.get_input_embeddings()(question), torch.ones_like(question))
    return model.lm_head(hidden[:, -1]).log_softmax(-1).gather(-1, batch["answer"][:, None]).squeeze(-1)


def both(n: int = 3) -> list:
    draw = torch.Generator().manual_seed(1)
    starts = torch.arange(n) % 3
    images = {
        "prompt": torch.randint(1, 19, (n, PROMPT), generator=draw),
        "mask": (torch.arange(PROMPT)[None] >= starts[:, None]).long(),
        "codes": torch.randint(12, (n, CODES), generator=draw),
    }
    questions = {
        "question": torch.randint(1, 19, (n, QUESTION), generator=draw),
        "answer": torch.randint(20, (n,), generator=draw),
    }
    return [(image_logp, images), (answer_logp, questions)]


@pytest.mark.parametrize("part", ["everything", "trunk"])
def test_all_methods_agree_on_janus(janus: torch.nn.Module, part: str) -> None:
    trunk = theory.trunk_only(janus, janus.model.language_model)
    select = trunk if part == "trunk" else None
    rows = looped_gradients(janus, both(), list(theory.select_parameters(janus, select)))
    for method in ("auto", "hooks", "ghost", "func"):
        result = theory.gram(janus, both(), select, method)
        torch.testing.assert_close(result.K, rows @ rows.T, rtol=1e-10, atol=1e-10)
    assert result.gu.abs().max() > 1e-3


def test_the_trunk_alone_couples_the_heads(janus: torch.nn.Module) -> None:
    result = theory.gram(janus, both(), per_module=True)
    heads = [name for name, part in result.parts.items() if result.part(name).gu.abs().max() == 0 and part.any()]
    assert {"lm_head", "model.generation_head.vision_head", "model.generation_embeddings"} <= set(heads)
    layers = result.regrouped(lambda name: name.split(".self_attn")[0].split(".mlp")[0])
    trunk = sum(part for name, part in layers.parts.items() if name.startswith("model.language_model"))
    torch.testing.assert_close(trunk[:3, 3:], result.gu)


def test_both_directions_agree_on_janus(janus: torch.nn.Module) -> None:
    torch.manual_seed(2)
    delta = {k: torch.randn_like(p) for k, p in theory.select_parameters(janus, "model.language_model.*").items()}
    forward, reverse = (theory.directional(janus, both(), delta, method) for method in ("jvp", "reverse"))
    torch.testing.assert_close(forward, reverse, **NEAR)


def test_the_token_kernel_of_janus_matches_the_full_kernel(janus: torch.nn.Module) -> None:
    (_, images), (_, questions) = ((fn, {k: v[:1] for k, v in batch.items()}) for fn, batch in both())

    def drawn_hidden(model: torch.nn.Module, batch: dict[str, Tensor]) -> Tensor:
        kept: list[Tensor] = []
        head = model.model.generation_head.vision_head
        handle = head.register_forward_pre_hook(lambda _, args: kept.append(args[0]))
        image_logp(model, batch)
        handle.remove()
        return kept[0]

    def read_hidden(model: torch.nn.Module, batch: dict[str, Tensor]) -> Tensor:
        question = batch["question"]
        return trunk_states(model, model.get_input_embeddings()(question), torch.ones_like(question))[:, -1:]

    trunk = theory.trunk_only(janus, janus.model.language_model)
    middle = theory.trunk_kernel(janus, (read_hidden, questions), (drawn_hidden, images), trunk)
    head_u, head_g = janus.lm_head.weight.detach(), janus.model.generation_head.vision_head.weight.detach()
    bias = janus.model.generation_head.vision_head.bias.detach()
    kernel = theory.TokenKernel(head_u, middle, head_g)
    residual_u = torch.eye(20).double()[questions["answer"]] - (read_hidden(janus, questions)[0] @ head_u.T).softmax(-1)
    drawn = (drawn_hidden(janus, images)[0] @ head_g.T + bias).softmax(-1)
    influence = kernel.influence(residual_u.detach(), (torch.eye(12).double()[images["codes"][0]] - drawn).detach())
    exact = theory.gram(janus, [(image_logp, images), (answer_logp, questions)], trunk).gu
    torch.testing.assert_close(influence.sum(), exact.squeeze(), **NEAR)


def test_fused_attention_takes_the_reverse_direction_and_names_the_remedy(janus: torch.nn.Module) -> None:
    trunk = janus.model.language_model
    delta = {k: torch.ones_like(p) for k, p in theory.select_parameters(janus, theory.trunk_only(janus, trunk)).items()}
    exact = theory.directional(janus, both(), delta, "reverse")
    trunk.set_attn_implementation("sdpa")
    try:
        torch.testing.assert_close(theory.directional(janus, both(), delta, "reverse"), exact, **NEAR)
        with pytest.raises(ValueError, match=r"source \d has no forward-mode .*attn_implementation=.eager.*reverse"):
            theory.directional(janus, both(), delta, "jvp")
    finally:
        trunk.set_attn_implementation("eager")
