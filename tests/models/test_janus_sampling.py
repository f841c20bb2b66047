"""The engine that draws: fixed shapes, one reading a prompt, parts of a batch, checkpointed training."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional as F

import unigap.models.engine.autoregressive as autoregressive
import unigap.models.janus.likelihood as likelihood_module
import unigap.models.janus.sampling as sampling_module
from unigap.models.base import SamplingRecipe
from unigap.models.engine.autoregressive import code_logps
from unigap.models.engine.one_token import attend
from unigap.models.engine.static_decoding import DecodingCache, padded_rows
from unigap.models.janus import Janus
from unigap.objectives.losses import sft_loss

PROMPTS = ["a red circle", "a small red circle left of a large blue square"]
CODES = torch.randint(64, (2, 16), generator=torch.Generator().manual_seed(0))
SEEDS = torch.arange(6).view(2, 3)


def saved_bytes(model: Janus) -> int:
    """What a training step keeps for its backward pass."""
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = sft_loss(model.image_logps(model.encode_prompt(PROMPTS), CODES))
    loss.backward()
    return sum(size for at, size in kept.items() if at not in weights)


def gradients(model: Janus) -> dict[str, torch.Tensor]:
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def test_a_prompt_is_read_once_however_many_images_are_drawn(janus: Janus) -> None:
    tokens: list[tuple[int, ...]] = []
    first = janus.core.language_model.layers[0].mlp
    hook = first.register_forward_pre_hook(lambda module, args: tokens.append(tuple(args[0].shape[:-1])))
    try:
        prompt = janus.encode_prompt(PROMPTS)
        janus.sample_images(prompt, SEEDS, SamplingRecipe(cfg=2.0))
    finally:
        hook.remove()
    assert tokens == [(4, prompt.ids_BL.shape[1])] + [(12,)] * 15  # guidance doubles; the last code is not fed back


def test_compiled_steps_share_few_shapes() -> None:
    shapes = {padded_rows(rows) for rows in range(1, 257)}
    assert len(shapes) == 20 and all(rows <= padded_rows(rows) < max(2 * rows, rows + 16) for rows in range(1, 257))


def test_rows_and_tokens_that_fill_up_a_shape_change_nothing(
    janus: Janus, new_janus: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled = new_janus(compile=True)
    # the benchmark compiles; here the same step runs as it is, on the shapes that would be compiled
    monkeypatch.setattr(torch, "compile", lambda step, **options: step)
    for recipe in (SamplingRecipe(), SamplingRecipe(cfg=2.0, top_k=9)):
        expected = janus.sample_images(janus.encode_prompt(PROMPTS), SEEDS, recipe)
        found = filled.sample_images(filled.encode_prompt(PROMPTS), SEEDS, recipe)
        assert torch.equal(found.drawings_BN, expected.drawings_BN)
        torch.testing.assert_close(found.logp_BNM, expected.logp_BNM, atol=1e-5, rtol=0)


def test_reading_all_slots_as_a_captured_step_does_changes_nothing(
    janus: Janus, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompt, recipe = janus.encode_prompt(PROMPTS), SamplingRecipe(cfg=2.0)
    expected = janus.sample_images(prompt, SEEDS, recipe)
    monkeypatch.setattr(sampling_module, "DecodingCache", lambda *given, fixed: DecodingCache(*given, fixed=True))
    found = janus.sample_images(prompt, SEEDS, recipe)
    assert torch.equal(found.drawings_BN, expected.drawings_BN)
    torch.testing.assert_close(found.logp_BNM, expected.logp_BNM, atol=1e-5, rtol=0)


@pytest.mark.parametrize("heads", [2, 6])
def test_attention_from_one_token_is_attention(heads: int) -> None:
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(3, n, s, 8, generator=generator) for n, s in ((heads, 1), (2, 9), (2, 9)))
    seen_RS = torch.rand(3, 7, generator=generator) < 0.5
    seen_RS[:, 0] = True
    bias_R1S = torch.zeros(3, 1, 7).masked_fill(~seen_RS[:, None], torch.finfo(torch.float32).min)
    products, fused = (
        attend(query, key[:, :, :7], value[:, :, :7], bias, 8**-0.5)
        for bias in (bias_R1S.repeat_interleave(2, 0), bias_R1S[:, None])
    )
    asked = F.scaled_dot_product_attention(query, key[:, :, :7], value[:, :, :7], bias_R1S[:, None], enable_gqa=True)
    torch.testing.assert_close(fused, asked.flatten(1))
    torch.testing.assert_close(products, asked.flatten(1))


def test_checkpointed_training_keeps_less_and_gives_the_same_gradients(new_janus: Any) -> None:
    plain, checkpointed = new_janus(), new_janus(gradient_checkpointing=True)
    kept = []
    for model in (plain, checkpointed):
        model.trunk.train()
        kept.append(saved_bytes(model))
    assert kept[1] < 0.5 * kept[0]
    torch.testing.assert_close(gradients(checkpointed), gradients(plain), atol=1e-6, rtol=1e-5)


def test_logits_in_parts_give_the_same_likelihoods_and_gradients() -> None:
    torch.manual_seed(0)
    head, hidden_BMD = torch.nn.Linear(8, 32), torch.randn(3, 10, 8, requires_grad=True)
    codes_BM = torch.randint(32, (3, 10))
    largest: list[int] = []
    results = []
    for at_once in (10**6, 7 * 32, 1):
        seen: list[int] = []
        hook = head.register_forward_hook(lambda module, args, out, seen=seen: seen.append(out.numel()))
        logp_BM = code_logps(head, hidden_BMD, codes_BM, 32, at_once)
        gradient = torch.autograd.grad(logp_BM.sum(), (hidden_BMD, *head.parameters()))
        hook.remove()
        largest.append(max(seen))
        results.append((logp_BM.detach(), gradient))
    assert largest == [30 * 32, 7 * 32, 32]
    for logp_BM, gradient in results[1:]:
        torch.testing.assert_close(logp_BM, results[0][0], atol=1e-6, rtol=0)
        torch.testing.assert_close(gradient, results[0][1], atol=1e-5, rtol=1e-5)


def test_a_large_batch_holds_few_logits(new_janus: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = new_janus()
    expected = model.image_logps(model.encode_prompt(PROMPTS), CODES)
    monkeypatch.setattr(
        likelihood_module,
        "code_logps",
        lambda *given, **options: autoregressive.code_logps(*given, at_once=5 * model.n_codes, **options),
    )
    found = model.image_logps(model.encode_prompt(PROMPTS), CODES)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    assert found.shape == (2, 16) and found.requires_grad
