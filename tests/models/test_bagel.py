"""BAGEL: equal to its authors' code, images that depend on their seeds alone, and experts that train or do not."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bagel_official import ANSWER, PROMPTS, QUESTIONS, SEED, SIDE, STEPS
from peak_bytes import PeakBytes
from small_runs import FICKLE, WATCHED, improve, state
from torch.nn import functional as F

import theory
from benchmarks.small_bagel import published_shape
from unigap.callbacks.dynamics_coupling import layer_of
from unigap.callbacks.dynamics_probes import generation_source, understanding_source
from unigap.loop.sampling import sample_candidates, stack_drawings
from unigap.models.bagel import Bagel, FlowSettings
from unigap.models.bagel.network import BagelNetwork
from unigap.models.bagel.sampling import guided_velocity
from unigap.models.bagel.understanding import read_size
from unigap.models.bagel.vae import OFFSET, SCALE, published
from unigap.models.base import SamplingRecipe
from unigap.models.engine.latent_codec import LatentCodec
from unigap.models.engine.patches import patched, unpatched
from unigap.models.engine.rectified_flow import noises, shifted, training_draws
from unigap.objectives import DPO, SFT
from unigap.records import Prompt

OFFICIAL = Path(__file__).with_name("bagel_official.npz")
CLOSE = {"atol": 1e-4, "rtol": 0.0}
GUIDED = SamplingRecipe(cfg=4.0)
TOKENS, WIDTH = 16, 16
Loader = Callable[..., Bagel]


@pytest.fixture(scope="module")
def official() -> dict[str, torch.Tensor]:
    """What the authors' code computes on the same weights (tests/models/bagel_official.py)."""
    return {name: torch.from_numpy(array) for name, array in np.load(OFFICIAL).items()}


@pytest.fixture(scope="module")
def model(new_bagel: Loader) -> Bagel:
    """With the authors' settings; leave it as it is."""
    return new_bagel(image_size=SIDE, flow=FlowSettings(timesteps=STEPS))


def latents(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, TOKENS, WIDTH, generator=torch.Generator().manual_seed(seed))


def images() -> torch.Tensor:
    return torch.rand(2, 3, 56, 56, generator=torch.Generator().manual_seed(5)) * 2 - 1


def picture() -> torch.Tensor:
    return torch.rand(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(6)) * 2 - 1


def sampled(model: Bagel, prompts: tuple[str, ...], recipe: SamplingRecipe) -> torch.Tensor:
    """One image per prompt, all from the authors' seed."""
    seeds = torch.full((len(prompts), 1), SEED)
    return model.sample_images(model.encode_prompt(prompts), seeds, recipe).drawings_BN[:, 0]


def answer_logits(model: Bagel, pixels: torch.Tensor, questions: tuple[str, ...]) -> torch.Tensor:
    tails = [[model._template.question_ids(question) for question in questions]] * len(pixels)
    hidden, ends = model._understanding._read(pixels, tails)
    return model.net.language_model.lm_head(hidden[torch.arange(len(pixels))[:, None], ends])


# The authors' code


def test_images_are_sampled_as_the_authors_code_does(model: Bagel, official: dict) -> None:
    found = sampled(model, PROMPTS, GUIDED)
    expected = torch.stack([official[f"sampled_{index}"] for index in range(len(PROMPTS))])
    torch.testing.assert_close(found, expected, **CLOSE)
    assert (expected[0] - expected[1]).abs().max() > 1
    torch.testing.assert_close(sampled(model, PROMPTS[:1], SamplingRecipe())[0], official["sampled_unguided"], **CLOSE)


def test_guidance_by_token_and_at_all_times_is_the_authors_too(new_bagel: Loader, official: dict) -> None:
    settings = FlowSettings(timesteps=STEPS, renorm="channel", guided_from=0.0)
    model = new_bagel(image_size=SIDE, flow=settings)
    found = sampled(model, PROMPTS[:1], SamplingRecipe(cfg=3.0))[0]
    torch.testing.assert_close(found, official["sampled_channel"], **CLOSE)


def test_velocities_are_those_of_the_authors_code(model: Bagel, official: dict) -> None:
    noise = noises(torch.full((len(PROMPTS),), SEED), (TOKENS, WIDTH))
    context = model._flow.context(model.encode_prompt(PROMPTS), 1)
    found = model._flow.velocity(noise, torch.full((len(PROMPTS),), 0.7), context)
    for index, velocity in enumerate(found):
        torch.testing.assert_close(velocity.detach(), official[f"velocity_{index}"], **CLOSE)


def test_latents_are_decoded_and_pixels_encoded_as_the_authors_code_does(model: Bagel, official: dict) -> None:
    torch.testing.assert_close(model.decode(official["sampled_0"][None]), official["pixels"], **CLOSE)
    # the training loss below encodes
    assert model.encode(picture()).shape == (1, TOKENS, WIDTH)


def test_the_next_token_after_a_question_is_that_of_the_authors_code(model: Bagel, official: dict) -> None:
    found = answer_logits(model, images(), QUESTIONS)
    for image in range(2):
        for question in range(len(QUESTIONS)):
            torch.testing.assert_close(found[image, question], official[f"logits_{image}_{question}"], **CLOSE)
    wide = images()[:1, :, :28]
    torch.testing.assert_close(answer_logits(model, wide, QUESTIONS[:1])[0, 0], official["logits_wide"], **CLOSE)


def test_verdicts_are_log_odds_of_the_authors_next_token(model: Bagel, official: dict) -> None:
    words = model.tokenizer.convert_tokens_to_ids(["Yes", "yes", "No", "no"])
    assert model._template.yes == sorted(words[:2]) and model._template.no == sorted(words[2:])
    logits = official["logits_1_0"]
    expected = logits[words[:2]].logsumexp(0) - logits[words[2:]].logsumexp(0)
    answers = model.judge_answers(images()[1:], [[QUESTIONS[0]]])
    torch.testing.assert_close(answers.logit.detach()[0, 0], expected, **CLOSE)
    torch.testing.assert_close(answers.mass[0, 0], logits.softmax(0)[words].sum(), **CLOSE)


def test_answers_are_as_likely_as_under_the_authors_training_loss(model: Bagel, official: dict) -> None:
    logp, mask = model.text_logps(images()[:1], [[QUESTIONS[0]]], [[ANSWER]])
    assert mask.all()
    torch.testing.assert_close(logp.detach()[0, 0], official["answer"], **CLOSE)


@pytest.mark.parametrize(("name", "number"), [("errors", 0.3), ("errors_null", -0.5)])
def test_the_surrogate_is_minus_the_authors_training_loss(
    model: Bagel, official: dict, monkeypatch: pytest.MonkeyPatch, name: str, number: float
) -> None:
    draws = torch.tensor([number]).sigmoid(), official["noise"][None]
    monkeypatch.setattr("unigap.models.engine.flow_likelihood.training_draws", lambda *_: draws)
    prompt = model.encode_prompt(PROMPTS[:1]).unconditional(torch.tensor([name == "errors_null"]))
    found = model.image_logps(prompt, model.encode(picture()), torch.zeros(1, dtype=torch.int64))
    torch.testing.assert_close(found.detach()[0], -official[name].mean(-1), **CLOSE)
    torch.testing.assert_close(-found.detach().mean(), official[name].mean(), **CLOSE)


def test_images_to_read_are_resized_as_by_the_authors_code(official: dict) -> None:
    for height, width, *expected in official["read_sizes"].tolist():
        assert read_size(height, width, 224, 980, 14) == tuple(expected)


def test_prompts_have_the_authors_token_ids(model: Bagel, official: dict) -> None:
    start, end = model.tokenizer.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"])
    ids = official["ids"].tolist()
    assert model._template.prompt_ids(PROMPTS[1]) == [start, *ids, end]
    assert model._template.question_ids(PROMPTS[1]) == [start, *ids, end, start]
    assert model._template.answer_ids(PROMPTS[1]) == [*ids, end]


def test_names_and_shapes_at_the_published_size_are_those_of_the_authors_code(official: dict) -> None:
    from diffusers import AutoencoderKL

    with torch.device("meta"):
        net = BagelNetwork(published_shape())
        vae = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=(128, 256, 512, 512),
            layers_per_block=2,
            latent_channels=16,
            use_quant_conv=False,
            use_post_quant_conv=False,
        )
    codec = LatentCodec(vae, SCALE, OFFSET)
    assert (codec.side, codec.width) == (16, 64)
    tensors = {**net.state_dict(), **{f"ae: {name}": tensor for name, tensor in published(codec).items()}}
    lines = "\n".join(sorted(f"{name} {tuple(tensor.shape)}" for name, tensor in tensors.items()))
    assert hashlib.sha256(lines.encode()).digest() == bytes(official["layout"].tolist())


def test_the_page_names_the_authors_results(official: dict) -> None:
    page = (Path(__file__).parents[2] / "docs" / "bagel.md").read_text(encoding="utf-8")
    assert hashlib.sha256(OFFICIAL.read_bytes()).hexdigest() in page


# Sampling


@pytest.mark.parametrize("recipe", [SamplingRecipe(), GUIDED], ids=str)
def test_equal_seeds_draw_equal_images_whatever_the_batch(bagel: Bagel, recipe: SamplingRecipe) -> None:
    seed_BN = torch.arange(6).view(3, 2) + 2**40
    together = bagel.sample_images(bagel.encode_prompt(PROMPTS), seed_BN, recipe)
    assert together.drawings_BN.shape == (3, 2, TOKENS, WIDTH) and together.drawings_BN.dtype == torch.float32
    assert together.logp_BNM is None
    for row, text in enumerate(PROMPTS):
        alone = bagel.sample_images(bagel.encode_prompt([text]), seed_BN[row : row + 1, 1:], recipe).drawings_BN
        torch.testing.assert_close(alone[0, 0], together.drawings_BN[row, 1], **CLOSE)
    assert (together.drawings_BN[:, 0] - together.drawings_BN[:, 1]).abs().amax((-1, -2)).min() > 0.1


def test_one_step_goes_from_the_noise_along_the_velocity(new_bagel: Loader) -> None:
    model = new_bagel(flow=FlowSettings(timesteps=2))
    noise = noises(torch.tensor([SEED]), (TOKENS, WIDTH))
    with torch.no_grad():
        velocity = model._flow.velocity(noise, torch.ones(1), model._flow.context(model.encode_prompt(PROMPTS[:1]), 1))
    assert torch.equal(sampled(model, PROMPTS[:1], SamplingRecipe()), noise - velocity)


@pytest.mark.parametrize("recipe", [SamplingRecipe(), GUIDED], ids=str)
def test_guidance_costs_a_second_pass_within_its_interval_only(
    new_bagel: Loader, monkeypatch: pytest.MonkeyPatch, recipe: SamplingRecipe
) -> None:
    model = new_bagel(flow=FlowSettings(timesteps=11, guided_until=0.99))
    passes: list[tuple[float, bool]] = []
    velocity = model._flow.velocity
    monkeypatch.setattr(
        model._flow,
        "velocity",
        lambda x, t, context: passes.append((t[0].item(), context is None)) or velocity(x, t, context),
    )
    sampled(model, PROMPTS[:1], recipe)
    times = [time for time, is_null in passes if not is_null]
    assert len(times) == 10 and times[0] == 1 and min(times) < 0.4
    assert [time for time, is_null in passes if is_null] == [
        time for time in times if 0.4 < time < 1 and recipe.cfg > 1
    ]


def test_guidance_never_lengthens_a_velocity_and_looks_at_one_image() -> None:
    cond, null = latents(3, 1), latents(3, 2)
    for renorm, over in (("global", (-2, -1)), ("channel", (-1,))):
        settings = FlowSettings(renorm=renorm)  # type: ignore[arg-type]
        found = guided_velocity(cond, null, 4.0, settings)
        lengths = torch.linalg.vector_norm(found, dim=over) / torch.linalg.vector_norm(cond, dim=over)
        torch.testing.assert_close(lengths, torch.ones_like(lengths), atol=1e-5, rtol=0)
        torch.testing.assert_close(guided_velocity(cond[1:2], null[1:2], 4.0, settings), found[1:2])
    free = guided_velocity(cond, null, 4.0, FlowSettings(renorm_min=1.0))
    torch.testing.assert_close(free, null + 4 * (cond - null))


@pytest.mark.parametrize("recipe", [SamplingRecipe(temperature=0), SamplingRecipe(top_k=5), SamplingRecipe(top_p=0.5)])
def test_a_recipe_for_codes_is_refused(bagel: Bagel, recipe: SamplingRecipe) -> None:
    with pytest.raises(ValueError, match="BAGEL samples no codes: temperature"):
        sampled(bagel, PROMPTS[:1], recipe)


def test_broken_weights_are_named_at_the_first_step(new_bagel: Loader) -> None:
    model = new_bagel()
    model.net.llm2vae.weight.data.fill_(float("nan"))
    with pytest.raises(ValueError, match="velocities are not finite"):
        sampled(model, PROMPTS[:1], SamplingRecipe())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"timesteps": 1}, "timesteps must be >= 2, got 1"),
        ({"shift": 0.0}, "shift must be > 0"),
        ({"training_shift": float("inf")}, "training_shift must be > 0 and finite"),
        ({"guided_from": 0.9, "guided_until": 0.5}, "guidance from 0.9 to 0.5"),
        ({"renorm": "text_channel"}, "renorm must be 'global' or 'channel'"),
        ({"renorm_min": 2.0}, r"renorm_min must be in \[0, 1\]"),
        ({"likelihood_draws": 0}, "likelihood_draws must be >= 1"),
    ],
)
def test_flow_settings_out_of_range_are_refused(values: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FlowSettings(**values)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 40 + 4}, "image_size must be a multiple of 8 and at most 64 pixels, got 44"),
        ({"image_size": 72}, "got 72"),
        ({"image_size": 0}, "got 0"),
        ({"train": "both"}, "train must be one of generation, shared, all, got 'both'"),
    ],
)
def test_options_of_its_own_that_cannot_be_are_refused(new_bagel: Loader, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        new_bagel(**options)


def test_what_draws_or_measures_differently_has_another_digest(new_bagel: Loader) -> None:
    changes = [
        {}, {"timesteps": 7}, {"shift": 1.0}, {"guided_from": 0.0}, {"guided_until": 0.9}, {"renorm": "channel"},
        {"renorm_min": 0.5}, {"training_shift": 2.0}, {"likelihood_draws": 2},
    ]  # fmt: skip
    numbers = [FlowSettings(**change).numbers() for change in changes]
    assert len({tuple(row) for row in numbers}) == len(changes) == len(dataclasses.fields(FlowSettings)) + 1
    models = [new_bagel(), new_bagel(flow=FlowSettings(7)), new_bagel(image_size=64)]
    assert len({model.weights_digest() for model in models}) == len(models)
    assert len({model.drawing_digest() for model in models}) == 2  # one for each image size


def test_patches_are_put_together_as_they_were_cut() -> None:
    image = torch.arange(2 * 3 * 4 * 6.0).view(2, 3, 4, 6)
    cut = patched(image, 2)
    assert torch.equal(cut[0, 1], image[0, :, :2, 2:4].permute(1, 2, 0).flatten())
    assert torch.equal(unpatched(cut, 2, 3, 2), image)


def test_decoding_takes_the_memory_it_is_counted_with(bagel: Bagel) -> None:
    counted = bagel.drawing_bytes(SamplingRecipe())
    with PeakBytes() as bytes_of:
        bagel.decode(latents(4))
    assert 0.9 * counted < bytes_of.peak / 4 < 1.1 * counted


# Likelihood


def test_a_surrogate_is_minus_the_mean_squared_error_at_its_seed(bagel: Bagel) -> None:
    prompt, clean, seeds = bagel.encode_prompt(PROMPTS), latents(3), torch.tensor([5, 6, 7])
    time, noise = training_draws(seeds, (TOKENS, WIDTH), 1.0)
    mixed = (1 - time)[:, None, None] * clean + time[:, None, None] * noise
    velocity = bagel._flow.velocity(mixed, time, bagel._flow.context(prompt, 1))
    expected = F.mse_loss(velocity, noise - clean, reduction="none").mean((1, 2))
    torch.testing.assert_close(-bagel.image_logps(prompt, clean, seeds).mean(1), expected, atol=1e-5, rtol=1e-5)


def test_noise_is_a_function_of_its_seed_and_times_are_logit_normal() -> None:
    together = training_draws(torch.tensor([3, 4, 3]), (2, 5), 1.0)
    alone = training_draws(torch.tensor([4]), (2, 5), 1.0)
    for many, one in zip(together, alone, strict=True):
        assert torch.equal(many[0], many[2]) and torch.equal(many[1:2], one)
    time, noise = training_draws(torch.arange(4000), (1, 2), 1.0)
    assert abs(time.logit().mean()) < 0.05 and abs(time.logit().std() - 1) < 0.05 and abs(noise.std() - 1) < 0.05
    assert torch.equal(training_draws(torch.arange(10), (1, 2), 3.0)[0], shifted(time[:10], 3.0))


def test_without_seeds_the_draws_follow_from_the_prompt(new_bagel: Loader) -> None:
    model = new_bagel(flow=FlowSettings(6, likelihood_draws=3))
    prompt = model.encode_prompt(PROMPTS)
    first = model.image_logps(prompt, latents(3))
    assert torch.equal(first, model.image_logps(prompt, latents(3)))
    seeds = model._likelihood._seeds(prompt, 1)
    assert len(set(seeds.flatten().tolist())) == 9
    each = torch.stack([model.image_logps(prompt, latents(3), seeds[:, draw]) for draw in range(3)])
    torch.testing.assert_close(first, each.mean(0), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("images", "noise", "message"),
    [
        (latents(2), torch.zeros(2), "one int64 seed an image"),
        (latents(2), torch.zeros(3, dtype=torch.int64), "one int64 seed an image"),
        (latents(2)[:, :4], None, "latents of shape"),
        (torch.zeros(2, TOKENS, WIDTH, dtype=torch.int64), None, "floating-point latents"),
    ],
)
def test_images_and_seeds_of_another_kind_are_refused(bagel: Bagel, images: Any, noise: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bagel.image_logps(bagel.encode_prompt(PROMPTS[:2]), images, noise)


# Experts


def surrogate(model: Bagel) -> torch.Tensor:
    return model.image_logps(model.encode_prompt(PROMPTS), latents(3), torch.arange(3))


def verdicts(model: Bagel) -> torch.Tensor:
    return model.judge_logit(images(), [list(QUESTIONS)] * 2)


def moved(model: Bagel, loss: torch.Tensor) -> set[str]:
    """Names of the parameters with a gradient."""
    model.zero_grad()
    loss.backward()
    return {name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}


def test_images_reach_the_understanding_expert_through_keys_and_values_only(new_bagel: Loader) -> None:
    model = new_bagel()
    names = moved(model, surrogate(model).sum())
    layers = "net.language_model.model.layers."
    last = {name.removeprefix(f"{layers}2.") for name in names if name.startswith(f"{layers}2.")}
    assert {name for name in last if "_moe_gen" not in name} == {
        "self_attn.k_proj.weight", "self_attn.k_proj.bias", "self_attn.v_proj.weight", "self_attn.v_proj.bias",
        "self_attn.k_norm.weight", "input_layernorm.weight",
    }  # fmt: skip
    everything = {name for name, p in model.named_parameters() if p.requires_grad}
    assert {name for name in everything if "_moe_gen" in name} <= names
    assert (
        "net.language_model.model.norm.weight" not in names and "net.language_model.model.norm_moe_gen.weight" in names
    )


@pytest.mark.parametrize("options", [{}, {"lora_rank": 2}], ids=["full", "lora"])
@pytest.mark.parametrize("train", ["generation", "shared", "all"])
def test_the_chosen_experts_train_and_no_other(new_bagel: Loader, train: str, options: dict) -> None:
    model = new_bagel(train=train, **options)
    chosen = {name for name, p in model.named_parameters() if p.requires_grad}
    kinds = {"_moe_gen" in name for name in chosen}
    assert kinds == {"generation": {True}, "shared": {False}, "all": {True, False}}[train]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    judged, error = verdicts(model).detach(), surrogate(model).mean()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-3)
    for _ in range(4):
        optimizer.zero_grad()
        (-surrogate(model).mean()).backward()
        optimizer.step()
    assert surrogate(model).mean() > error
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed and changed <= chosen
    assert torch.equal(verdicts(model), judged) == (train == "generation")


def test_verdicts_train_the_understanding_expert_alone(new_bagel: Loader) -> None:
    model = new_bagel()
    names = moved(model, verdicts(model).sum())
    assert names == {name for name in model.trainable_state() if "_moe_gen" not in name}
    assert not verdicts(new_bagel(train="generation")).requires_grad


@pytest.mark.parametrize("train", ["generation", "shared"])
def test_layers_recompute_their_activations_when_asked(
    new_bagel: Loader, train: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = new_bagel(train=train, gradient_checkpointing=True)
    model.trunk.train()
    layer = model.blocks[0]
    calls: list[None] = []
    attention = layer.self_attn.forward
    monkeypatch.setattr(layer.self_attn, "forward", lambda *args: calls.append(None) or attention(*args))
    loss = surrogate(model).sum()
    before = len(calls)
    loss.backward()
    assert len(calls) > before
    model.trunk.eval()
    assert not layer.training


def test_half_precision_is_for_the_network(new_bagel: Loader, bagel: Bagel) -> None:
    model = new_bagel(dtype="bfloat16")
    assert {p.dtype for p in model.net.parameters()} == {torch.bfloat16}
    assert {p.dtype for p in model.codec.parameters()} == {torch.float32}
    assert torch.equal(model.decode(latents(1)), bagel.decode(latents(1)))
    assert surrogate(model).dtype == verdicts(model).dtype == torch.float32
    torch.testing.assert_close(surrogate(model).mean(1), surrogate(bagel).mean(1), rtol=0.1, atol=0)
    drawn = sampled(model, PROMPTS[:1], GUIDED)
    assert drawn.dtype == torch.float32 and torch.isfinite(drawn).all()


def test_what_is_stored_is_what_is_decoded(bagel: Bagel) -> None:
    stored = bagel.storable(latents(2))
    assert stored.dtype == torch.float16
    assert torch.equal(bagel.decode(stored), bagel.decode(stored.float()))
    torch.testing.assert_close(bagel.decode(stored), bagel.decode(latents(2)), atol=2e-2, rtol=0)


# The loop


def test_objectives_learn_from_stored_latents(new_bagel: Loader) -> None:
    model = new_bagel(train="all")
    model.reference_state = model.trainable_state()
    asked = [Prompt(f"p{index}", text) for index, text in enumerate(PROMPTS)]
    (batch,) = sample_candidates(model, asked, 2, 0, 0, GUIDED)
    assert batch.candidates[0].drawing.dtype == np.float16 and batch.candidates[0].logp is None
    torch.testing.assert_close(batch.pixels_BCHW, model.decode(stack_drawings(batch.candidates)))
    logits = {candidate.id: 2.0 if candidate.index else -2.0 for candidate in batch.candidates}
    for objective in (DPO(beta=50, per_token=True), SFT(keep=1)):
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
        rows = objective.collate(objective.rows(batch.candidates, logits), {})
        torch.manual_seed(0)
        first = objective.step(model, rows)
        if isinstance(objective, DPO):
            torch.testing.assert_close(first.logs["dpo/loss"], torch.tensor(math.log(2)), atol=1e-5, rtol=0)
        for _ in range(6):
            optimizer.zero_grad()
            torch.manual_seed(0)
            step = objective.step(model, rows)
            step.loss.backward()
            optimizer.step()
        assert step.loss < first.loss


def test_a_run_of_the_whole_loop_trains_both_experts(bagel_folder: Path, here: Path) -> None:
    model = "model.init_args.model"
    small = {
        f"{model}.class_path": "unigap.models.bagel.Bagel",
        f"{model}.init_args.image_size": SIDE,
        f"{model}.init_args.flow.timesteps": 3,
        "run": "run",
    }
    assert improve(bagel_folder, "sft", {**FICKLE, **small}) == 0
    assert np.load("run/pool/round-00000/latents.npy", mmap_mode="r").shape[1:] == (TOKENS, WIDTH)
    before = {f"model.{name}": tensor for name, tensor in Bagel(str(bagel_folder)).state_dict().items()}
    after = state(Path("run/checkpoints/last.ckpt"))
    changed = {name for name, tensor in after.items() if "layers" in name and not torch.equal(tensor, before[name])}
    assert {"_moe_gen" in name for name in changed} == {True, False}


# Learning dynamics


def test_answers_and_images_are_coupled_through_the_understanding_expert_alone(new_bagel: Loader) -> None:
    texts = list(PROMPTS)
    grams = {}
    for train in ("all", "generation"):
        model = new_bagel(train=train)
        sources = [
            generation_source(model, texts, latents(3)),
            understanding_source(model, texts, latents(3), ["{prompt}?"]),
        ]
        grams[train] = theory.gram(model, sources, per_module=True).regrouped(layer_of)
    assert grams["generation"].gg.diagonal().min() > 0
    assert not grams["generation"].gu.any() and not grams["generation"].uu.any()
    parts = {name: grams["all"].part(name) for name in grams["all"].parts}
    of_generation = {name for name in parts if "generation expert" in name} | {"norm_moe_gen"}
    assert len(of_generation) == 10 and all(not parts[name].gu.any() for name in of_generation)
    assert all(parts[name].gg.any() for name in of_generation)
    # no latent attends to what these compute
    assert all(not parts[name].gg.any() and parts[name].uu.any() for name in ("layer 2 mlp", "norm"))
    assert all(parts[name].gu.any() for name in ("layer 0 attention", "layer 0 mlp", "layer 2 attention"))


def test_with_generation_experts_alone_every_coupling_is_an_exact_zero(bagel_folder: Path, here: Path) -> None:
    model = "model.init_args.model"
    small = {
        f"{model}.class_path": "unigap.models.bagel.Bagel",
        f"{model}.init_args.image_size": SIDE,
        f"{model}.init_args.flow.timesteps": 3,
        f"{model}.init_args.train": "generation",
        "run": "run",
    }
    assert improve(bagel_folder, "sft", {**FICKLE, **WATCHED, **small}) == 0
    rows = json.loads((here / "watched" / "dynamics.json").read_text())
    kernels, steps = ([row["figures"] for row in rows if row["kind"] == kind] for kind in ("kernel", "step"))
    assert kernels and steps
    assert all(math.isfinite(value) for figures in [*kernels, *steps] for value in figures.values())
    for figures in kernels:
        assert figures["own_cosine/value"] == figures["coupling/value"] == 0 and figures["own_cosine/p"] == 1
        assert {value for name, value in figures.items() if name.startswith("part/")} == {0.0}
    for figures in steps:
        assert "fit/generation/r2" in figures and "fit/understanding/r2" not in figures
