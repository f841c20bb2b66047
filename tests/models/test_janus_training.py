"""What trains and what does not, going back to the start, and saving what was learned."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import JanusForConditionalGeneration

from unigap.models.base import evaluating
from unigap.models.janus import Janus
from unigap.objectives.losses import sft_loss

PROMPTS = ["a red circle", "a small red circle left of a large blue square"]
CODES = torch.randint(64, (2, 16), generator=torch.Generator().manual_seed(0))
LORA = {"lora_rank": 3, "lora_alpha": 6.0}
WAYS = pytest.mark.parametrize("options", [{}, LORA], ids=["full", "lora"])


def train(model: Janus, steps: int = 2) -> None:
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        sft_loss(logps(model)).backward()
        optimizer.step()


def logps(model: Janus) -> torch.Tensor:
    return model.image_logps(model.encode_prompt(PROMPTS), CODES)


def judged(model: Janus) -> torch.Tensor:
    return model.judge_logit(model.decode(CODES), [["is it red?", "six rings?"]] * 2).detach()


def everything(model: Janus) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


SEVERAL = torch.randint(64, (6, 16), generator=torch.Generator().manual_seed(1))
SETTINGS = [{}, LORA, {"gradient_checkpointing": True}, {"attn_implementation": "eager"}]


def learned(model: Janus, likelihood: torch.Tensor) -> dict[str, torch.Tensor]:
    """Gradients of a loss that weighs every token differently."""
    model.zero_grad()
    (likelihood * torch.linspace(-1, 2, likelihood.numel()).view_as(likelihood)).sum().backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("options", SETTINGS, ids=["full", "lora", "checkpointed", "eager"])
def test_images_that_share_a_prompt_learn_what_they_learn_apart(new_janus, options: dict) -> None:
    model = new_janus(**options)
    if "lora_rank" in options:
        train(model, 1)  # an adapter that is not zero
    model.trunk.train()
    prompt = model.encode_prompt(PROMPTS)
    rows: list[tuple[int, int]] = []
    first = model.core.language_model.layers[0]
    hook = first.register_forward_pre_hook(lambda module, args: rows.append(tuple(args[0].shape[:2])))
    together, apart = model.image_logps(prompt, SEVERAL), model.image_logps(prompt.repeat(3), SEVERAL)
    length = prompt.ids_BL.shape[1]
    assert rows == [(2, length + 3 * 15), (6, length + 15)], "the prompt is read once"
    hook.remove()
    torch.testing.assert_close(together, apart, atol=1e-5, rtol=0)
    expected = learned(model, apart)
    assert set(expected) == set(model.trainable_state())
    torch.testing.assert_close(learned(model, together), expected, atol=1e-5, rtol=1e-4)


def test_an_error_on_the_way_leaves_the_trained_weights_in_place(new_janus) -> None:
    model = new_janus()
    start = model.trainable_state()
    train(model, 1)
    trained = everything(model)
    with pytest.raises(RuntimeError, match="stop"), model.with_state(start):
        raise RuntimeError("stop")
    assert all(torch.equal(tensor, trained[name]) for name, tensor in model.state_dict().items())


def test_a_start_kept_on_another_device_is_brought_over(new_janus) -> None:
    model = new_janus(**LORA)
    start = model.trainable_state()
    model.to("meta")
    with model.with_state(start):
        assert {p.device.type for p in model.parameters()} == {"meta"}


@WAYS
def test_a_saved_model_is_a_plain_transformers_checkpoint(new_janus, tmp_path: Path, options: dict) -> None:
    model = new_janus(**options)
    train(model)
    model.save(tmp_path / "saved")
    net, report = JanusForConditionalGeneration.from_pretrained(tmp_path / "saved", output_loading_info=True)
    assert not any(report.values())
    assert not any("lora" in name for name in net.state_dict())
    plain = Janus.from_parts(net.eval(), model.processor)
    torch.testing.assert_close(logps(plain), logps(model), atol=1e-5, rtol=0)
    files = {path.name for path in (tmp_path / "saved").iterdir()}
    assert "model.safetensors" in files and not any(name.startswith("adapter") for name in files)


def test_digests_tell_models_apart(janus: Janus, new_janus) -> None:
    model = new_janus()
    assert model.weights_digest() == janus.weights_digest()
    train(model, 1)
    assert model.weights_digest() != janus.weights_digest()
    assert model.drawing_digest() == janus.drawing_digest()
    codes = model.core.vqmodel.quantize.embedding
    with torch.no_grad():
        codes.weight.copy_(codes.weight.flip(0))
    assert model.drawing_digest() != janus.drawing_digest()


def test_equal_adapters_on_different_bases_have_different_digests(new_janus) -> None:
    models = []
    for change in (0.0, 0.1):
        torch.manual_seed(0)
        models.append(new_janus(**LORA))
        with torch.no_grad():
            models[-1].core.language_model.layers[0].mlp.up_proj.base_layer.weight.add_(change)
    starts = [model.trainable_state() for model in models]
    assert all(torch.equal(starts[0][name], starts[1][name]) for name in starts[0])
    assert models[0].weights_digest() != models[1].weights_digest()


def test_eval_mode_ends_with_every_part_in_the_mode_it_was_in(new_janus) -> None:
    model = new_janus()
    model.trunk.train()
    modes = [module.training for module in model.modules()]
    with pytest.raises(RuntimeError), evaluating(model):
        assert not any(module.training for module in model.modules())
        raise RuntimeError
    assert [module.training for module in model.modules()] == modes and any(modes)
