"""The one correctness test of a model: every way of asking it the same thing gives the same answer."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from PIL import Image

from unigap.models.base import SamplingRecipe
from unigap.models.janus import Janus
from unigap.models.words import NO_FORMS, YES_FORMS
from unigap.shapes.grammar import parse
from unigap.shapes.scenes import imagine, render

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


def seeds(prompts: int, n: int) -> torch.Tensor:
    return torch.arange(prompts * n).view(prompts, n) * 7919 + 2**40


def codes(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(64, (count, 16), generator=torch.Generator().manual_seed(seed))


def pictures(count: int, seed: int = 0) -> list[Image.Image]:
    noise = np.random.default_rng(seed).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
    return [Image.fromarray(row) for row in noise]


def pixels(images: list[Image.Image]) -> torch.Tensor:
    """The same pictures as the protocol takes them, in [-1, 1]."""
    rows = [torch.from_numpy(np.array(image)).permute(2, 0, 1) for image in images]
    return torch.stack(rows).float() / 127.5 - 1


def plain_inputs(janus: Janus, image: Image.Image, question: str, answer: str = "") -> dict[str, torch.Tensor]:
    """What a user of transformers does: chat template, processor, picture."""
    content = [{"type": "image"}, {"type": "text", "text": question}]
    chat = janus.processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    return dict(janus.processor(text=[chat + answer], images=[image], return_tensors="pt"))


# Drawing


@pytest.mark.parametrize("recipe", RECIPES, ids=str)
def test_log_probabilities_while_sampling_are_the_teacher_forced_ones(janus: Janus, recipe: SamplingRecipe) -> None:
    prompt = janus.encode_prompt(PROMPTS)
    samples = janus.sample_images(prompt, seeds(4, 3), recipe)
    assert samples.codes_BNM.shape == samples.logp_BNM.shape == (4, 3, 16)
    assert samples.logp_BNM.dtype == torch.float32 and (samples.logp_BNM < 0).all()
    forced_RM = janus.image_logps(prompt.repeat(3), samples.codes_BNM.flatten(0, 1))
    torch.testing.assert_close(samples.logp_BNM.flatten(0, 1), forced_RM.detach(), atol=1e-5, rtol=0)


def test_image_logps_are_those_of_a_plain_forward_pass(janus: Janus) -> None:
    image_BM = codes(len(PROMPTS))
    together_BM = janus.image_logps(janus.encode_prompt(PROMPTS), image_BM)
    net, processor = janus.net, janus.processor
    for text, image_M, found_M in zip(PROMPTS, image_BM, together_BM, strict=True):
        chat = processor.apply_chat_template(
            [{"role": "user", "content": [{"type": "text", "text": text}]}], add_generation_prompt=True
        )
        ids = processor(text=[chat], generation_mode="image", return_tensors="pt")["input_ids"]
        drawn = net.prepare_embeddings_for_image_generation(image_M[None, :-1])
        embeds = torch.cat([net.get_input_embeddings()(ids), drawn], 1)
        hidden = net.model.language_model(inputs_embeds=embeds).last_hidden_state[0, ids.shape[1] - 1 :]
        logp_MV = net.model.generation_head(hidden).log_softmax(-1)
        torch.testing.assert_close(found_M, logp_MV[range(16), image_M], atol=1e-5, rtol=0)


def test_image_logps_of_a_padded_batch_are_those_of_one_at_a_time(janus: Janus) -> None:
    image_BM = codes(4)
    together = janus.image_logps(janus.encode_prompt(PROMPTS), image_BM)
    alone = [
        janus.image_logps(janus.encode_prompt([text]), row[None]) for text, row in zip(PROMPTS, image_BM, strict=True)
    ]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-5, rtol=0)


def test_probabilities_of_all_codes_sum_to_one(janus: Janus) -> None:
    first_BM = torch.arange(64)[:, None]
    total = janus.image_logps(janus.encode_prompt(PROMPTS[:1] * 64), first_BM).exp().sum()
    torch.testing.assert_close(total, torch.tensor(1.0), atol=1e-5, rtol=0)


@pytest.mark.parametrize("recipe", RECIPES, ids=str)
def test_equal_seeds_draw_equal_codes_whatever_the_batch(janus: Janus, recipe: SamplingRecipe) -> None:
    seed_BN = seeds(4, 6)
    together = janus.sample_images(janus.encode_prompt(PROMPTS), seed_BN, recipe).codes_BNM
    for row, text in enumerate(PROMPTS):
        alone = janus.sample_images(janus.encode_prompt([text]), seed_BN[row : row + 1, 2:3], recipe).codes_BNM
        assert torch.equal(alone[0, 0], together[row, 2])
    order = torch.tensor([2, 0])
    shuffled = janus.sample_images(janus.encode_prompt([PROMPTS[i] for i in order]), seed_BN[order].flip(1), recipe)
    assert torch.equal(shuffled.codes_BNM, together[order].flip(1))


def test_seeds_decide_what_is_drawn_and_torchs_generator_does_not(janus: Janus) -> None:
    prompt = janus.encode_prompt(PROMPTS)
    first = janus.sample_images(prompt, seeds(4, 8), SamplingRecipe()).codes_BNM
    state = torch.get_rng_state()
    torch.manual_seed(99)
    assert torch.equal(janus.sample_images(prompt, seeds(4, 8), SamplingRecipe()).codes_BNM, first)
    torch.set_rng_state(state)
    other = janus.sample_images(prompt, seeds(4, 8) + 1, SamplingRecipe()).codes_BNM
    assert (other != first).float().mean() > 0.5
    assert len({tuple(row) for row in first.flatten(0, 1).tolist()}) == 32


def test_greedy_codes_with_guidance_are_those_of_transformers(janus: Janus) -> None:
    chats = [
        janus.processor.apply_chat_template(
            [{"role": "user", "content": [{"type": "text", "text": text}]}], add_generation_prompt=True
        )
        for text in PROMPTS
    ]
    inputs = janus.processor(text=chats, generation_mode="image", padding=True, return_tensors="pt")
    expected = janus.net.generate(**inputs, generation_mode="image", do_sample=False, guidance_scale=5)
    recipe = SamplingRecipe(temperature=0, cfg=5)
    found = janus.sample_images(janus.encode_prompt(PROMPTS), seeds(4, 1), recipe).codes_BNM[:, 0]
    assert torch.equal(found, expected)
    unguided = janus.sample_images(janus.encode_prompt(PROMPTS), seeds(4, 1), SamplingRecipe(temperature=0))
    assert not torch.equal(unguided.codes_BNM[:, 0], expected)


def test_sampling_in_train_mode_with_gradient_checkpointing_draws_the_same(janus: Janus, new_janus) -> None:
    training = new_janus()
    training.net.activation_checkpointing_enable({"use_reentrant": False})
    training.train()
    training.core.vqmodel.eval()
    modes = [module.training for module in training.modules()]
    prompt = janus.encode_prompt(PROMPTS)
    found = training.sample_images(prompt, seeds(4, 2), SamplingRecipe(cfg=2.0))
    expected = janus.sample_images(prompt, seeds(4, 2), SamplingRecipe(cfg=2.0))
    assert torch.equal(found.codes_BNM, expected.codes_BNM)
    assert not found.logp_BNM.requires_grad
    assert [module.training for module in training.modules()] == modes


def test_prompt_dropout_gives_the_null_prompt_of_guidance(janus: Janus) -> None:
    prompt = janus.encode_prompt(PROMPTS)
    dropped = prompt.unconditional(torch.tensor([True, False, True, False]))
    keep = {janus.processor.tokenizer.bos_token_id, janus.processor.tokenizer.convert_tokens_to_ids("<begin_of_image>")}
    pad = janus.processor.tokenizer.pad_token_id
    for row, text_L in enumerate(prompt.ids_BL.tolist()):
        null = [token if token in keep else pad for token in text_L]
        assert prompt.uncond_BL[row].tolist() == null
        assert dropped.ids_BL[row].tolist() == (null if row % 2 == 0 else text_L)
    assert torch.equal(dropped.mask_BL, prompt.mask_BL)


def test_a_likelihood_with_noise_is_refused(janus: Janus) -> None:
    with pytest.raises(ValueError, match="exact likelihood"):
        janus.image_logps(janus.encode_prompt(PROMPTS[:1]), codes(1), torch.zeros(1, 16))


# Pictures and their codes


def test_decoded_pictures_lie_in_range_and_do_not_depend_on_the_batch(janus: Janus) -> None:
    image_BM = codes(5)
    pixels_BCHW = janus.decode(image_BM)
    assert pixels_BCHW.shape == (5, 3, 32, 32) and pixels_BCHW.dtype == torch.float32
    assert pixels_BCHW.min() >= -1 and pixels_BCHW.max() <= 1 and not pixels_BCHW.requires_grad
    torch.testing.assert_close(janus.decode(image_BM[3:4]), pixels_BCHW[3:4], atol=1e-5, rtol=0)
    assert not torch.allclose(pixels_BCHW[0], pixels_BCHW[1])


def test_encoding_picks_the_nearest_code_in_angle(janus: Janus) -> None:
    rng = random.Random(0)
    scenes = torch.stack([render(imagine(parse(text), rng)) for text in PROMPTS])
    found_BM = janus.encode(scenes)
    assert found_BM.shape == (4, janus.image_tokens) and found_BM.dtype == torch.int64
    vq = janus.core.vqmodel
    latent_BMD = vq.quant_conv(vq.encoder(scenes)).permute(0, 2, 3, 1).reshape(4, 16, -1)
    angle_BMV = torch.cosine_similarity(latent_BMD[:, :, None], vq.quantize.embedding.weight, dim=-1)
    assert torch.equal(found_BM, angle_BMV.argmax(-1))
    assert torch.equal(janus.encode(scenes[1:2]), found_BM[1:2])
    torch.testing.assert_close(janus.codebook.norm(dim=-1), torch.ones(janus.n_codes))


# Judging


def test_packed_questions_are_answered_as_if_asked_alone(janus: Janus) -> None:
    shown = pixels(pictures(2))
    packed_BQ = janus.judge_logit(shown, [QUESTIONS, QUESTIONS[::-1]])
    assert packed_BQ.shape == (2, 3)
    for row, questions in enumerate((QUESTIONS, QUESTIONS[::-1])):
        alone = [janus.judge_logit(shown[row : row + 1], [[question]])[0, 0] for question in questions]
        torch.testing.assert_close(packed_BQ[row], torch.stack(alone), atol=1e-5, rtol=0)


def test_judge_logits_are_those_of_a_plain_forward_pass(janus: Janus) -> None:
    images = pictures(2)
    packed_BQ = janus.judge_logit(pixels(images), [QUESTIONS, QUESTIONS[::-1]])
    tokens = janus.processor.tokenizer
    yes, no = (
        sorted({ids[0] for f in forms if len(ids := tokens.encode(f, add_special_tokens=False)) == 1})
        for forms in (YES_FORMS, NO_FORMS)
    )
    for row, questions in enumerate((QUESTIONS, QUESTIONS[::-1])):
        for column, question in enumerate(questions):
            logp_V = janus.net(**plain_inputs(janus, images[row], question)).logits[0, -1].log_softmax(-1)
            expected = logp_V[yes].exp().sum().log() - logp_V[no].exp().sum().log()
            torch.testing.assert_close(packed_BQ[row, column], expected, atol=1e-5, rtol=0)


def test_a_question_does_not_see_the_others(janus: Janus) -> None:
    shown = pixels(pictures(1))
    asked = janus.judge_logit(shown, [[QUESTIONS[0], QUESTIONS[1], QUESTIONS[2]]])
    changed = janus.judge_logit(shown, [["six black rings?", QUESTIONS[1], "is it two green triangles?"]])
    torch.testing.assert_close(asked[0, 1], changed[0, 1], atol=1e-5, rtol=0)
    assert (asked[0, 0] - changed[0, 0]).abs() > 1e-3


def test_the_judge_looks_at_the_picture(janus: Janus) -> None:
    logit_B = janus.judge_logit(pixels(pictures(8)), [[QUESTIONS[0]]] * 8)[:, 0]
    assert logit_B.std() > 1e-3


def test_answer_logps_are_those_of_a_plain_forward_pass(janus: Janus) -> None:
    images = pictures(2)
    questions = [["is it red?", "what does this image show?"], ["what is it?", "six rings?"]]
    answers = [["yes", "a small red circle and a ring"], ["two black crosses", "no"]]
    logp_BQT, mask_BQT = janus.text_logps(pixels(images), questions, answers)
    assert logp_BQT.shape == mask_BQT.shape and mask_BQT.dtype == torch.bool
    assert (logp_BQT[~mask_BQT] == 0).all()
    eos = janus.processor.tokenizer.eos_token
    for row in range(2):
        for column in range(2):
            asked = plain_inputs(janus, images[row], questions[row][column])
            inputs = plain_inputs(janus, images[row], questions[row][column], f" {answers[row][column]}{eos}")
            start = asked["input_ids"].shape[1]
            logp_SV = janus.net(**inputs).logits[0, start - 1 : -1].log_softmax(-1)
            expected = logp_SV.gather(1, inputs["input_ids"][0, start:, None])[:, 0]
            found = logp_BQT[row, column][mask_BQT[row, column]]
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_a_picture_of_another_size_is_resized(janus: Janus) -> None:
    large = torch.nn.functional.interpolate(pixels(pictures(1)), scale_factor=2, mode="nearest")
    assert torch.isfinite(janus.judge_logit(large, [[QUESTIONS[0]]])).all()


def test_both_branches_give_the_trunk_a_gradient(new_janus) -> None:
    model = new_janus()
    for loss in (
        model.judge_logit(pixels(pictures(1)), [[QUESTIONS[0]]]).sum(),
        model.text_logps(pixels(pictures(1)), [[QUESTIONS[0]]], [["yes"]])[0].sum(),
        model.image_logps(model.encode_prompt(PROMPTS[:1]), codes(1)).sum(),
    ):
        model.zero_grad()
        loss.backward()
        moved = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
        assert moved == {name for name, p in model.named_parameters() if p.requires_grad}
