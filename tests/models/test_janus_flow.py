"""JanusFlow: equal to its authors' code, images that depend on their seeds alone, and one trunk for both branches."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from janus_flow_official import PROMPTS, QUESTIONS, SEED, SEEN_STEP, STEPS, shown
from peak_bytes import PeakBytes
from small_runs import FICKLE, improve, state
from torch.nn import functional as F

from benchmarks.small_janus_flow import SIDE, TOKENS, published_shape, published_tensors
from unigap.loop.sampling import sample_candidates
from unigap.models.base import SamplingRecipe
from unigap.models.engine.patches import patched, unpatched
from unigap.models.engine.rectified_flow import training_draws
from unigap.models.janus_flow import FlowSettings, JanusFlow
from unigap.objectives import DPO, SFT
from unigap.records import Prompt

OFFICIAL = Path(__file__).with_name("janus_flow_official.npz")
CLOSE = {"atol": 1e-4, "rtol": 0.0}
GUIDED = SamplingRecipe(cfg=2.0)
WIDTH = 16
Loader = Callable[..., JanusFlow]


@pytest.fixture(scope="module")
def official() -> dict[str, torch.Tensor]:
    """What the authors' code computes on the same weights (tests/models/janus_flow_official.py)."""
    return {name: torch.from_numpy(array) for name, array in np.load(OFFICIAL).items()}


@pytest.fixture(scope="module")
def model(new_janus_flow: Loader) -> JanusFlow:
    """With the authors' settings; leave it as it is."""
    return new_janus_flow(flow=FlowSettings(steps=STEPS))


def latents(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, TOKENS, WIDTH, generator=torch.Generator().manual_seed(seed))


def images() -> torch.Tensor:
    return torch.from_numpy(shown()).permute(0, 3, 1, 2) / 127.5 - 1


def sampled(model: JanusFlow, prompts: tuple[str, ...], recipe: SamplingRecipe) -> torch.Tensor:
    """One image per prompt, all from the authors' seed."""
    seeds = torch.full((len(prompts), 1), SEED)
    return model.sample_images(model.encode_prompt(prompts), seeds, recipe).drawings_BN[:, 0]


def tokens(official: dict[str, torch.Tensor], name: str) -> torch.Tensor:
    """The authors' latents, (4, H, W) or (B, 4, H, W), as tokens."""
    found = official[name]
    return patched(found if found.dim() == 4 else found[None], 2)


# The authors' code


def test_images_are_sampled_as_the_authors_code_does(model: JanusFlow, official: dict) -> None:
    found = sampled(model, PROMPTS, GUIDED)
    expected = torch.cat([tokens(official, f"latents_{index}") for index in range(len(PROMPTS))])
    torch.testing.assert_close(found, expected, **CLOSE)
    assert (expected[0] - expected[1]).abs().max() > 0.1
    unguided = tokens(official, "unguided")
    torch.testing.assert_close(sampled(model, PROMPTS[:1], SamplingRecipe()), unguided, **CLOSE)
    assert (unguided - expected[:1]).abs().max() > 0.1


def test_another_guidance_and_number_of_steps_are_the_authors_too(new_janus_flow: Loader, official: dict) -> None:
    found = sampled(new_janus_flow(flow=FlowSettings(steps=7)), PROMPTS[1:2], SamplingRecipe(cfg=5.0))
    torch.testing.assert_close(found, tokens(official, "strong"), **CLOSE)


@pytest.mark.parametrize("null", [False, True])
def test_velocities_are_those_of_the_authors_code(model: JanusFlow, official: dict, null: bool) -> None:
    prompt = model.encode_prompt(PROMPTS)
    given = prompt.unconditional(torch.full((len(PROMPTS),), null))
    entered = torch.cat([tokens(official, f"entered_{index}") for index in range(len(PROMPTS))])
    time_R = torch.full((len(PROMPTS),), 1 - SEEN_STEP / STEPS)
    assert official["time_0"] == SEEN_STEP / STEPS * 1000
    # their time goes from noise to image
    expected = -torch.cat([tokens(official, f"left_{index}")[int(null)][None] for index in range(len(PROMPTS))])
    torch.testing.assert_close(model._flow.velocity_given(given, 1, entered, time_R).detach(), expected, **CLOSE)
    context = model._flow.context(given.ids_BL, given.mask_BL, 1)
    torch.testing.assert_close(model._flow.velocities(entered, time_R, context).detach(), expected, **CLOSE)


def test_latents_are_decoded_and_pixels_encoded_as_the_authors_code_does(model: JanusFlow, official: dict) -> None:
    found = model.decode(tokens(official, "latents_0"))
    torch.testing.assert_close(found[0], official["pixels_0"], **CLOSE)
    torch.testing.assert_close(model.encode(images()), tokens(official, "encoded"), **CLOSE)


def test_the_next_token_after_a_question_is_that_of_the_authors_code(model: JanusFlow, official: dict) -> None:
    tails = [[model._template.question_ids(question) for question in QUESTIONS]] * 2
    hidden, ends = model._understanding._read(images(), tails)
    found = model.net.language_model.lm_head(hidden[torch.arange(2)[:, None], ends])
    for image in range(2):
        for question in range(len(QUESTIONS)):
            torch.testing.assert_close(found[image, question], official[f"logits_{image}_{question}"], **CLOSE)
    assert (official["logits_0_0"] - official["logits_1_0"]).abs().max() > 0.1


def test_verdicts_are_log_odds_of_the_authors_next_token(model: JanusFlow, official: dict) -> None:
    tokenizer = model._parts.processor.tokenizer
    forms = [[tokenizer(form, add_special_tokens=False)["input_ids"] for form in (w, f" {w}")] for w in ("yes", "no")]
    assert all(len(ids) == 1 and ids[0] in side for ids in forms[0] for side in [model._template.yes])
    logits = official["logits_1_0"]
    expected = logits[model._template.yes].logsumexp(0) - logits[model._template.no].logsumexp(0)
    answers = model.judge_answers(images()[1:], [[QUESTIONS[0]]])
    torch.testing.assert_close(answers.logit.detach()[0, 0], expected, **CLOSE)


def test_prompts_and_questions_have_the_authors_token_ids(model: JanusFlow, official: dict) -> None:
    for index, prompt in enumerate(PROMPTS):
        ids = official[f"ids_{index}"].tolist()
        assert model._template.prompt_ids(prompt) == ids and ids[0] == model._parts.processor.tokenizer.bos_token_id
    for index, question in enumerate(QUESTIONS):
        found = [*model._template.image_prefix, *model._template.question_ids(question)]
        assert found == official[f"question_{index}"].tolist()


def test_names_and_shapes_at_the_published_size_are_those_of_the_authors_code(official: dict) -> None:
    tensors = published_tensors(published_shape())
    assert sum(tensor.numel() for tensor in tensors.values()) == 2_046_367_504
    lines = "\n".join(sorted(f"{name} {tuple(tensor.shape)}" for name, tensor in tensors.items()))
    assert hashlib.sha256(lines.encode()).digest() == bytes(official["layout"].tolist())


def test_the_page_names_the_authors_results() -> None:
    page = (Path(__file__).parents[2] / "docs" / "janus_flow.md").read_text(encoding="utf-8")
    assert hashlib.sha256(OFFICIAL.read_bytes()).hexdigest() in page


# Sampling


@pytest.mark.parametrize("recipe", [SamplingRecipe(), GUIDED], ids=str)
def test_equal_seeds_draw_equal_images_whatever_the_batch(janus_flow: JanusFlow, recipe: SamplingRecipe) -> None:
    seed_BN = torch.arange(6).view(3, 2) + 2**40
    together = janus_flow.sample_images(janus_flow.encode_prompt(PROMPTS), seed_BN, recipe)
    assert together.drawings_BN.shape == (3, 2, TOKENS, WIDTH) and together.drawings_BN.dtype == torch.float32
    assert together.logp_BNM is None
    for row, text in enumerate(PROMPTS):
        alone = janus_flow.sample_images(janus_flow.encode_prompt([text]), seed_BN[row : row + 1, 1:], recipe)
        torch.testing.assert_close(alone.drawings_BN[0, 0], together.drawings_BN[row, 1], **CLOSE)
    assert (together.drawings_BN[:, 0] - together.drawings_BN[:, 1]).abs().amax((-1, -2)).min() > 0.1


def test_one_step_goes_from_the_authors_noise_along_the_velocity(new_janus_flow: Loader) -> None:
    model = new_janus_flow(flow=FlowSettings(steps=1))
    noise = patched(torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(SEED)), 2)
    with torch.no_grad():
        velocity = model._flow.velocity_given(model.encode_prompt(PROMPTS[:1]), 1, noise, torch.ones(1))
    torch.testing.assert_close(sampled(model, PROMPTS[:1], SamplingRecipe()), noise - velocity, **CLOSE)


@pytest.mark.parametrize("recipe", [SamplingRecipe(temperature=0), SamplingRecipe(top_k=5), SamplingRecipe(top_p=0.5)])
def test_a_recipe_for_codes_is_refused(janus_flow: JanusFlow, recipe: SamplingRecipe) -> None:
    with pytest.raises(ValueError, match="JanusFlow samples no codes: temperature"):
        sampled(janus_flow, PROMPTS[:1], recipe)


def test_broken_weights_are_named_at_the_first_step(new_janus_flow: Loader) -> None:
    model = new_janus_flow()
    model.net.vision_gen_dec_aligner.weight.data.fill_(float("nan"))
    with pytest.raises(ValueError, match="velocities are not finite"):
        sampled(model, PROMPTS[:1], SamplingRecipe())


@pytest.mark.parametrize("name", ["steps", "likelihood_draws"])
def test_flow_settings_out_of_range_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be >= 1, got 0"):
        FlowSettings(**{name: 0})


def test_what_draws_or_measures_differently_has_another_digest(new_janus_flow: Loader) -> None:
    models = [new_janus_flow(flow=FlowSettings(*numbers)) for numbers in ((5, 4), (6, 4), (5, 2))]
    assert len({model.weights_digest() for model in models}) == len(models)
    assert len({model.drawing_digest() for model in models}) == 1


def test_another_decoder_has_another_digest(new_janus_flow: Loader, janus_flow: JanusFlow) -> None:
    model = new_janus_flow()
    model.codec.vae.encoder.conv_in.bias.data += 1
    assert model.drawing_digest() == janus_flow.drawing_digest()
    model.codec.vae.post_quant_conv.bias.data += 1
    assert model.drawing_digest() != janus_flow.drawing_digest()


def test_decoding_takes_the_memory_it_is_counted_with(janus_flow: JanusFlow) -> None:
    counted = janus_flow.drawing_bytes(SamplingRecipe())
    with PeakBytes() as bytes_of:
        janus_flow.decode(latents(4))
    assert 0.9 * counted < bytes_of.peak / 4 < 1.1 * counted


# Likelihood and training


def test_a_surrogate_is_minus_the_mean_squared_error_at_its_seed(janus_flow: JanusFlow) -> None:
    prompt, clean, seeds = janus_flow.encode_prompt(PROMPTS), latents(3), torch.tensor([5, 6, 7])
    time, noise = training_draws(seeds, (TOKENS, WIDTH), 1.0)
    mixed = (1 - time)[:, None, None] * clean + time[:, None, None] * noise
    context = janus_flow._flow.context(prompt.ids_BL, prompt.mask_BL, 1)
    velocity = janus_flow._flow.velocities(mixed, time, context)
    expected = F.mse_loss(velocity, noise - clean, reduction="none").mean((1, 2))
    torch.testing.assert_close(-janus_flow.image_logps(prompt, clean, seeds).mean(1), expected, atol=1e-5, rtol=1e-5)


def test_both_branches_train_the_whole_trunk_and_nothing_else(new_janus_flow: Loader) -> None:
    model = new_janus_flow()
    trunk = {f"net.language_model.model.{name}" for name in model.trunk.state_dict()}
    for loss in (
        model.image_logps(model.encode_prompt(PROMPTS), latents(3), torch.arange(3)).sum(),
        model.judge_logit(images(), [list(QUESTIONS)] * 2).sum(),
        model.text_logps(images(), [["is it red?"]] * 2, [["yes"]] * 2)[0].sum(),
    ):
        model.zero_grad()
        loss.backward()
        assert {name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0} == trunk


def test_half_precision_is_for_the_network(new_janus_flow: Loader, janus_flow: JanusFlow) -> None:
    model = new_janus_flow(dtype="bfloat16")
    assert {p.dtype for p in model.net.parameters()} == {torch.bfloat16}
    assert {p.dtype for p in model.codec.parameters()} == {torch.float32}
    found, expected = (
        one.image_logps(one.encode_prompt(PROMPTS), latents(3), torch.arange(3)) for one in (model, janus_flow)
    )
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.mean(1), expected.mean(1), rtol=0.1, atol=0)
    drawn = sampled(model, PROMPTS[:1], GUIDED)
    assert drawn.dtype == torch.float32 and torch.isfinite(drawn).all()


def test_objectives_learn_from_stored_latents(new_janus_flow: Loader) -> None:
    model = new_janus_flow()
    model.reference_state = model.trainable_state()
    asked = [Prompt(f"p{index}", text) for index, text in enumerate(PROMPTS)]
    (batch,) = sample_candidates(model, asked, 2, 0, 0, GUIDED)
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


def test_a_run_of_the_whole_loop_trains_the_trunk(janus_flow_folder: Path, here: Path) -> None:
    model = "model.init_args.model"
    small = {
        f"{model}.class_path": "unigap.models.janus_flow.JanusFlow",
        f"{model}.init_args.flow.steps": 3,
        "run": "run",
    }
    assert improve(janus_flow_folder, "sft", {**FICKLE, **small}) == 0
    assert np.load("run/pool/round-00000/latents.npy", mmap_mode="r").shape[1:] == (TOKENS, WIDTH)
    before = {
        f"model.{name}": tensor
        for name, tensor in JanusFlow(str(janus_flow_folder), flow=FlowSettings(3)).state_dict().items()
    }
    after = state(Path("run/checkpoints/last.ckpt"))
    changed = {name for name, tensor in after.items() if name in before and not torch.equal(tensor, before[name])}
    assert changed and all("language_model.model" in name for name in changed)


def test_images_have_the_size_of_those_that_are_read(janus_flow: JanusFlow) -> None:
    drawn = unpatched(latents(1), 4, 4, 2)
    assert drawn.shape == (1, 4, 8, 8) and janus_flow.decode(latents(1)).shape == (1, 3, SIDE, SIDE)
