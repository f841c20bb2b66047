"""The one correctness test of a model, for all families: every way of asking the same thing gives the same answer."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from peak_bytes import PeakBytes

import theory
from unigap.callbacks.dynamics_probes import generation_source, understanding_source
from unigap.models.base import PromptBatch, SamplingRecipe, UnifiedModel
from unigap.models.families import load_model
from unigap.objectives.base import step_noise

FAMILIES = ("janus", "showo", "emu3", "bagel", "janus_flow", "vila_u")
CODED = ("janus", "showo", "emu3", "vila_u")
EXACT = ("janus", "emu3", "vila_u")
PROMPTS = [
    "a red circle",
    "a small red circle left of a large blue square",
    "six rings",
    "two black crosses and a ring",
]
QUESTIONS = ["is it red?", "does this image describe a small red circle left of a large blue square?", "six rings?"]
RECIPES = [
    SamplingRecipe(),
    SamplingRecipe(cfg=3.0, temperature=0.7),
    SamplingRecipe(cfg=2.0, top_k=5),
    SamplingRecipe(top_p=0.6),
    SamplingRecipe(temperature=0, cfg=5),
]
ACTED = [
    SamplingRecipe(),
    SamplingRecipe(cfg=3.0),
    SamplingRecipe(temperature=0.7),
    SamplingRecipe(temperature=1.3, cfg=3.0),
    SamplingRecipe(top_k=7),
    SamplingRecipe(cfg=2.0, top_k=20, temperature=0.9),
    SamplingRecipe(top_p=0.8),
    SamplingRecipe(cfg=3.0, top_p=0.9, top_k=30),
]
LORA = {"lora_rank": 3, "lora_alpha": 6}
WAYS = pytest.mark.parametrize("options", [{}, LORA], ids=["full", "lora"])
Loader = Callable[..., UnifiedModel]


@pytest.fixture(params=FAMILIES)
def model(request: pytest.FixtureRequest) -> Any:
    """Leave it as it is."""
    return request.getfixturevalue(request.param)


@pytest.fixture(params=CODED)
def coded(request: pytest.FixtureRequest) -> Any:
    """Leave it as it is."""
    return request.getfixturevalue(request.param)


@pytest.fixture(params=EXACT)
def exact(request: pytest.FixtureRequest) -> Any:
    """Leave it as it is."""
    return request.getfixturevalue(request.param)


@pytest.fixture(params=CODED)
def new_coded(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(f"new_{request.param}")


@pytest.fixture(params=FAMILIES)
def new_model(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(f"new_{request.param}")


def seeds(prompts: int, n: int) -> torch.Tensor:
    return torch.arange(prompts * n).view(prompts, n) * 7919 + 2**40


def code_shape(model: UnifiedModel) -> tuple[int, ...]:
    """16 codes, or 16 places with several codes."""
    return model.drawing_format.shape if model.drawing_format else (16,)


def every_code_at(model: UnifiedModel, place: int) -> torch.Tensor:
    """One image 64 times, with every code at one place, counted in the order of sampling."""
    image_RI = drawings(model, 1).flatten(1).repeat(64, 1)
    image_RI[:, place] = torch.arange(64)
    return image_RI.view(64, *code_shape(model))


def drawings(model: UnifiedModel, count: int, seed: int = 0) -> torch.Tensor:
    """Codes, or latents for a family that has no codes."""
    if model.drawing_format is not None and model.drawing_format.dtype == "float16":
        return torch.randn(count, *model.drawing_format.shape, generator=torch.Generator().manual_seed(seed))
    return torch.randint(64, (count, *code_shape(model)), generator=torch.Generator().manual_seed(seed))


def pixels(count: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def logps(model: UnifiedModel) -> torch.Tensor:
    return model.image_logps(model.encode_prompt(PROMPTS[:2]), drawings(model, 2))


def judged(model: UnifiedModel) -> torch.Tensor:
    return model.judge_logit(pixels(2), [QUESTIONS[:2]] * 2).detach()


def everything(model: UnifiedModel) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def train(model: UnifiedModel, steps: int = 3) -> list[float]:
    """The loss before each step and after the last."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    losses = []
    for _ in range(steps):
        loss = -logps(model).mean()
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return [*losses, -logps(model).mean().item()]


def names_of_trunk(model: UnifiedModel) -> set[str]:
    """What the trunk's parameters are called in the whole model."""
    trunk = {id(parameter) for parameter in model.trunk.parameters()}
    return {name for name, parameter in model.named_parameters() if id(parameter) in trunk}


# Drawing


@pytest.mark.parametrize("recipe", [RECIPES[0], RECIPES[2]], ids=str)
def test_equal_seeds_draw_equal_codes_whatever_the_batch(coded: UnifiedModel, recipe: SamplingRecipe) -> None:
    seed_BN = seeds(4, 6)
    together = coded.sample_images(coded.encode_prompt(PROMPTS), seed_BN, recipe).drawings_BN
    assert together.shape == (4, 6, *code_shape(coded)) and together.dtype == torch.int64
    for row, text in enumerate(PROMPTS):
        alone = coded.sample_images(coded.encode_prompt([text]), seed_BN[row : row + 1, 2:3], recipe).drawings_BN
        assert torch.equal(alone[0, 0], together[row, 2])
    order = torch.tensor([2, 0])
    shuffled = coded.sample_images(coded.encode_prompt([PROMPTS[i] for i in order]), seed_BN[order].flip(1), recipe)
    assert torch.equal(shuffled.drawings_BN, together[order].flip(1))


def test_seeds_decide_what_is_drawn_and_torchs_generator_does_not(model: UnifiedModel) -> None:
    prompt = model.encode_prompt(PROMPTS)
    first = model.sample_images(prompt, seeds(4, 8), SamplingRecipe()).drawings_BN
    with torch.random.fork_rng():
        torch.manual_seed(99)
        assert torch.equal(model.sample_images(prompt, seeds(4, 8), SamplingRecipe()).drawings_BN, first)
    other = model.sample_images(prompt, seeds(4, 8) + 1, SamplingRecipe()).drawings_BN
    assert (other != first).float().mean() > 0.5
    assert len({tuple(row) for row in first.flatten(0, 1).flatten(1).tolist()}) == 32


@pytest.mark.parametrize("recipe", RECIPES, ids=str)
def test_log_probabilities_while_sampling_are_the_teacher_forced_ones(
    exact: UnifiedModel, recipe: SamplingRecipe
) -> None:
    prompt = exact.encode_prompt(PROMPTS)
    samples = exact.sample_images(prompt, seeds(4, 3), recipe)
    assert samples.drawings_BN.shape == (4, 3, *code_shape(exact))
    assert samples.logp_BNM.shape == (4, 3, math.prod(code_shape(exact)))
    assert samples.logp_BNM.dtype == torch.float32 and (samples.logp_BNM < 0).all()
    forced_RM = exact.image_logps(prompt.repeat(3), samples.drawings_BN.flatten(0, 1))
    torch.testing.assert_close(samples.logp_BNM.flatten(0, 1), forced_RM.detach(), atol=1e-5, rtol=0)


@pytest.mark.parametrize("recipe", ACTED, ids=str)
def test_likelihoods_under_a_recipe_are_those_it_was_sampled_with(exact: UnifiedModel, recipe: SamplingRecipe) -> None:
    prompt = exact.encode_prompt(PROMPTS)
    samples = exact.sample_images(prompt, seeds(4, 3), recipe)
    assert (samples.behaviour_BNM is samples.logp_BNM) == recipe.is_plain
    image_RM, behaviour_RM = samples.drawings_BN.flatten(0, 1), samples.behaviour_BNM.flatten(0, 1)
    forced_RM = exact.image_logps(prompt, image_RM, recipe=recipe)
    torch.testing.assert_close(forced_RM.detach(), behaviour_RM, atol=1e-5, rtol=0)
    plain_RM = exact.image_logps(prompt, image_RM)
    assert torch.equal(plain_RM, forced_RM) == recipe.is_plain


def test_probabilities_under_a_recipe_sum_to_one(exact: UnifiedModel) -> None:
    image_RM = every_code_at(exact, 0)
    prompt = exact.encode_prompt(PROMPTS[:1])
    for recipe in ACTED:
        logp_R = exact.image_logps(prompt, image_RM, recipe=recipe)[:, 0]
        torch.testing.assert_close(logp_R.exp().sum(), torch.tensor(1.0), atol=1e-5, rtol=0)
        assert logp_R.isfinite().sum() <= (recipe.top_k or 64)


def test_a_likelihood_under_guidance_learns_through_both_passes(new_model: Loader) -> None:
    model, recipe = new_model(), SamplingRecipe(cfg=3.0, temperature=0.7)
    if not model.exact_likelihood:
        with pytest.raises(ValueError, match=r"no[a-z]* under a sampling recipe; pass recipe=None"):
            model.image_logps(model.encode_prompt(PROMPTS[:1]), drawings(model, 1), recipe=recipe)
        return
    weight, prompt, image_RM = next(model.trunk.parameters()), model.encode_prompt(PROMPTS[:2]), drawings(model, 2)
    ways = [prompt, prompt.unconditional(torch.tensor([True, True]))]

    def guided() -> torch.Tensor:
        """The definition, from logits that differ from log-probabilities by a constant: of every code at one place."""
        every_RI = image_RM[:1].flatten(1).repeat(64, 1)
        every_RI[:, 5] = torch.arange(64)
        every_RM = every_RI.view(64, *image_RM.shape[1:])
        cond_V, uncond_V = (model.image_logps(_first(way), every_RM)[:, 5] for way in ways)
        return ((uncond_V + 3.0 * (cond_V - uncond_V)) / 0.7).log_softmax(-1)[image_RM[0].flatten()[5]]

    found = model.image_logps(prompt, image_RM, recipe=recipe)[0, 5]
    torch.testing.assert_close(found, guided(), atol=1e-4, rtol=1e-5)
    expected = torch.autograd.grad(guided(), weight)[0]
    torch.testing.assert_close(
        torch.autograd.grad(found, weight)[0], expected, atol=1e-3 * expected.abs().max().item(), rtol=1e-3
    )
    with pytest.raises(ValueError, match="temperature 0 is greedy"):
        model.image_logps(prompt, image_RM, recipe=SamplingRecipe(temperature=0))


def _first(prompt: PromptBatch) -> PromptBatch:
    return PromptBatch(prompt.ids_BL[:1], prompt.mask_BL[:1], prompt.uncond_BL[:1], prompt.uncond_mask_BL[:1])


def test_checkpointed_training_does_not_change_what_is_drawn(new_model: Loader) -> None:
    plain, training = new_model(), new_model(gradient_checkpointing=True)
    training.trunk.train()
    modes = [module.training for module in training.modules()]
    prompt, recipe = plain.encode_prompt(PROMPTS), SamplingRecipe(cfg=2.0)
    found, expected = (m.sample_images(prompt, seeds(4, 2), recipe) for m in (training, plain))
    assert torch.equal(found.drawings_BN, expected.drawings_BN)
    assert found.logp_BNM is None or not found.logp_BNM.requires_grad
    assert [module.training for module in training.modules()] == modes and any(modes)
    torch.testing.assert_close(logps(training), logps(plain), atol=1e-5, rtol=0)


def test_both_kinds_of_attention_agree(new_model: Loader) -> None:
    eager, plain = new_model(attn_implementation="eager"), new_model()
    torch.testing.assert_close(logps(eager), logps(plain), atol=2e-5, rtol=1e-5)
    torch.testing.assert_close(judged(eager), judged(plain), atol=1e-5, rtol=0)


# Likelihood


def test_image_logps_of_a_padded_batch_are_those_of_one_at_a_time(model: UnifiedModel) -> None:
    image_BM = drawings(model, 4)
    together = model.image_logps(model.encode_prompt(PROMPTS), image_BM)
    alone = [
        model.image_logps(model.encode_prompt([text]), row[None]) for text, row in zip(PROMPTS, image_BM, strict=True)
    ]
    torch.testing.assert_close(together, torch.cat(alone), atol=2e-5, rtol=1e-5)


def test_images_that_share_a_prompt_are_as_likely_as_apart(model: UnifiedModel) -> None:
    prompt, image_RM = model.encode_prompt(PROMPTS), drawings(model, 12)
    together, apart = model.image_logps(prompt, image_RM), model.image_logps(prompt.repeat(3), image_RM)
    torch.testing.assert_close(together, apart, atol=2e-5, rtol=1e-5)
    with pytest.raises(ValueError, match="3 images for 2 prompts; give every prompt the same number"):
        model.image_logps(model.encode_prompt(PROMPTS[:2]), drawings(model, 3))


def test_probabilities_of_all_codes_sum_to_one(exact: UnifiedModel) -> None:
    for place in (0, 7):
        logp_RM = exact.image_logps(exact.encode_prompt(PROMPTS[:1]), every_code_at(exact, place))
        torch.testing.assert_close(logp_RM[:, place].exp().sum(), torch.tensor(1.0), atol=1e-5, rtol=0)


def test_a_prompt_that_is_dropped_is_the_null_prompt(model: UnifiedModel) -> None:
    prompt = model.encode_prompt(PROMPTS)
    dropped = prompt.unconditional(torch.tensor([True, False, True, False]))
    found, expected = model.image_logps(dropped, drawings(model, 4)), model.image_logps(prompt, drawings(model, 4))
    torch.testing.assert_close(found[1::2], expected[1::2], atol=2e-5, rtol=1e-5)
    assert ((found - expected)[::2].abs().amax(1) > 1e-3).all()


def test_an_exact_likelihood_takes_no_noise(exact: UnifiedModel) -> None:
    assert exact.exact_likelihood and step_noise(exact, 1) is None
    with pytest.raises(ValueError, match="exact likelihood"):
        exact.image_logps(exact.encode_prompt(PROMPTS[:1]), drawings(exact, 1), torch.zeros(1, dtype=torch.int64))


def test_an_estimate_is_a_function_of_its_noise(model: UnifiedModel) -> None:
    if model.exact_likelihood:
        return
    prompt, image_BM, seed_B = model.encode_prompt(PROMPTS), drawings(model, 4), step_noise(model, 4)
    assert seed_B is not None
    found_BM = model.image_logps(prompt, image_BM, seed_B)
    torch.testing.assert_close(model.image_logps(prompt, image_BM, seed_B), found_BM)
    flipped = model.image_logps(model.encode_prompt(PROMPTS[::-1]), image_BM.flip(0), seed_B.flip(0))
    torch.testing.assert_close(flipped.flip(0), found_BM, atol=2e-5, rtol=1e-5)
    assert not torch.allclose(model.image_logps(prompt, image_BM, seed_B + 1), found_BM)


# Pictures and their codes


def test_decoded_pictures_lie_in_range_and_do_not_depend_on_the_batch(model: UnifiedModel) -> None:
    image_BM = drawings(model, 3)
    pixels_BCHW = model.decode(image_BM)
    assert pixels_BCHW.shape == (3, 3, 32, 32) and pixels_BCHW.dtype == torch.float32
    assert pixels_BCHW.min() >= -1 and pixels_BCHW.max() <= 1 and not pixels_BCHW.requires_grad
    torch.testing.assert_close(model.decode(image_BM[2:]), pixels_BCHW[2:], atol=1e-5, rtol=0)
    assert not torch.allclose(pixels_BCHW[0], pixels_BCHW[1])


@pytest.mark.parametrize("family", ["janus", "emu3"])
def test_decoding_takes_the_memory_it_is_counted_with(
    family: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact: Any = request.getfixturevalue(family)
    # a prompt without keys and values leaves the decoder's share alone
    monkeypatch.setattr(exact.net.config.text_config, "num_hidden_layers", 0)
    counted = exact.drawing_bytes(SamplingRecipe())
    with PeakBytes() as bytes_of:
        exact.decode(drawings(exact, 4))
    assert 0.9 * counted < bytes_of.peak / 4 < 1.1 * counted


def test_encoded_pictures_are_codes_and_do_not_depend_on_the_batch(coded: UnifiedModel) -> None:
    found_BM = coded.encode(pixels(3))
    assert found_BM.shape == (3, *code_shape(coded)) and found_BM.dtype == torch.int64
    assert found_BM.min() >= 0 and found_BM.max() < coded.n_codes == len(coded.codebook)
    assert torch.equal(coded.encode(pixels(3)[1:2]), found_BM[1:2])


# Judging


def test_packed_questions_are_answered_as_if_asked_alone(model: UnifiedModel) -> None:
    shown = pixels(2)
    packed_BQ = model.judge_logit(shown, [QUESTIONS, QUESTIONS[::-1]])
    assert packed_BQ.shape == (2, 3) and packed_BQ.dtype == torch.float32
    for row, questions in enumerate((QUESTIONS, QUESTIONS[::-1])):
        alone = [model.judge_logit(shown[row : row + 1], [[question]])[0, 0] for question in questions]
        torch.testing.assert_close(packed_BQ[row], torch.stack(alone), atol=1e-5, rtol=0)


def test_a_question_does_not_see_the_others(model: UnifiedModel) -> None:
    asked = model.judge_logit(pixels(1), [QUESTIONS])
    changed = model.judge_logit(pixels(1), [["six black rings?", QUESTIONS[1], "is it two green triangles?"]])
    torch.testing.assert_close(asked[0, 1], changed[0, 1], atol=1e-5, rtol=0)
    assert (asked[0, 0] - changed[0, 0]).abs() > 1e-3


def test_the_judge_looks_at_the_picture_of_any_size(model: UnifiedModel) -> None:
    logit_B = model.judge_logit(pixels(8), [QUESTIONS[:1]] * 8)[:, 0]
    assert logit_B.std() > 1e-3
    large = torch.nn.functional.interpolate(pixels(1), scale_factor=2, mode="nearest")
    assert torch.isfinite(model.judge_logit(large, [QUESTIONS[:1]])).all()


# Learning dynamics


def test_the_kernel_between_the_branches_is_that_of_plain_gradients(model: UnifiedModel) -> None:
    sources = [
        generation_source(model, PROMPTS[:3], drawings(model, 3)),
        understanding_source(model, PROMPTS[:3], drawings(model, 3), ["is it {prompt}?", "{prompt}?"]),
    ]
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    rows = []
    for logp_fn, batch in sources:
        for logp in logp_fn(model, batch):
            grads = torch.autograd.grad(logp, parameters, retain_graph=True, materialize_grads=True)
            rows.append(torch.cat([grad.flatten() for grad in grads]))
    expected = torch.stack(rows).double() @ torch.stack(rows).double().T
    found = theory.gram(model, sources, dtype=torch.float64)
    scale = expected.diagonal().sqrt()
    assert scale.min() > 0
    torch.testing.assert_close(found.K / scale[:, None] / scale, expected / scale[:, None] / scale, atol=1e-4, rtol=0)


# Training


def test_both_branches_give_the_trunk_a_gradient(new_coded: Loader) -> None:
    model = new_coded()
    for loss in (
        model.judge_logit(pixels(1), [QUESTIONS[:1]]).sum(),
        model.text_logps(pixels(1), [QUESTIONS[:1]], [["yes"]])[0].sum(),
        model.image_logps(model.encode_prompt(PROMPTS[:1]), drawings(model, 1)).sum(),
    ):
        model.zero_grad()
        loss.backward()
        moved = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
        assert moved == names_of_trunk(model)


@WAYS
def test_only_the_trunk_moves_and_finds_back(new_coded: Loader, options: dict) -> None:
    model, untouched = new_coded(**options), new_coded()
    before, start = everything(model), model.trainable_state()
    losses = train(model)
    assert losses[-1] < losses[0]
    moved = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    trunk = names_of_trunk(model)
    assert moved == ({name for name in trunk if ".lora_" in name} if options else trunk)
    assert moved and moved == set(start)
    trained, learned = everything(model), logps(model).detach()
    with model.with_state(start):
        assert torch.equal(logps(model), logps(untouched)) and torch.equal(judged(model), judged(untouched))
    assert torch.equal(logps(model), learned) and not torch.equal(learned, logps(untouched))
    assert all(torch.equal(tensor, trained[name]) for name, tensor in model.state_dict().items())


def test_lora_adapts_every_linear_layer_of_the_trunk_and_nothing_else(new_model: Loader) -> None:
    plain, model = new_model(), new_model(**LORA)
    adapted = {name.split(".lora_")[0] for name, _ in model.named_parameters() if ".lora_" in name}
    trunk = {id(module) for module in plain.trunk.modules()}
    linear = {name for name, module in plain.named_modules() if isinstance(module, torch.nn.Linear)}
    assert adapted == {name for name in linear if id(plain.get_submodule(name)) in trunk}
    assert model.get_parameter(f"{min(adapted)}.lora_A.default.weight").shape[0] == LORA["lora_rank"]


@WAYS
def test_a_saved_model_is_the_same_and_training_goes_on(new_model: Loader, options: dict, tmp_path: Any) -> None:
    model = new_model(**options)
    train(model)
    before, training = everything(model), set(model.trainable_state())
    model.save(tmp_path / "saved", recipe={"lr": 3e-3})
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert set(model.trainable_state()) == training
    loaded = load_model(str(tmp_path / "saved"))
    assert type(loaded) is type(model)
    tolerance = {"atol": 1e-4, "rtol": 1e-5} if options else {"atol": 0, "rtol": 0}  # merging rounds
    torch.testing.assert_close(logps(loaded), logps(model), **tolerance)
    torch.testing.assert_close(judged(loaded), judged(model), **tolerance)
    assert loaded.drawing_digest() == model.drawing_digest()
    assert (loaded.weights_digest() == model.weights_digest()) == (not options)
    assert "| lr | 0.003 |" in (tmp_path / "saved" / "README.md").read_text()
    if not options:
        with pytest.raises(ValueError, match="no LoRA adapter; set lora_rank"):
            model.save(tmp_path / "adapter", adapter_only=True)


def test_half_precision_is_for_the_trunk(new_coded: Loader) -> None:
    model = new_coded(dtype="bfloat16")
    assert {p.dtype for p in model.trunk.parameters()} == {torch.bfloat16}
    assert model.codebook.dtype == model.decode(drawings(model, 1)).dtype == logps(model).dtype == torch.float32
    assert torch.isfinite(judged(model)).all() and torch.isfinite(logps(model)).all()
    torch.testing.assert_close(logps(model).sum(-1), logps(new_coded()).sum(-1), rtol=0.1, atol=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "float16"}, "unknown dtype 'float16'"),
        ({"attn_implementation": "flash_attention_2"}, "must be 'sdpa' or 'eager', got 'flash_attention_2'"),
        ({"device": "nowhere"}, "device 'nowhere' is not available"),
        ({"lora_rank": -1}, "lora_rank must be >= 0, got -1; 0 trains the trunk in full"),
        ({"lora_rank": 2, "lora_dropout": 2.0}, "dropout"),
    ],
)
def test_options_that_cannot_be_are_refused(new_model: Loader, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        new_model(**options)
