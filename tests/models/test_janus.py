"""Janus beside transformers: the same likelihoods, drawings, verdicts and answers as a plain forward pass."""

from __future__ import annotations

import random

import numpy as np
import torch
from PIL import Image

from unigap.models.base import SamplingRecipe
from unigap.models.engine.tokens import NO_FORMS, YES_FORMS
from unigap.models.janus import Janus
from unigap.worlds.shapes.grammar import parse
from unigap.worlds.shapes.scenes import imagine, render

PROMPTS = [
    "a red circle",
    "a small red circle left of a large blue square",
    "six rings",
    "two black crosses and a ring",
]
QUESTIONS = ["is it red?", "does this image describe a small red circle left of a large blue square?", "six rings?"]


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
    found = janus.sample_images(janus.encode_prompt(PROMPTS), seeds(4, 1), recipe).drawings_BN[:, 0]
    assert torch.equal(found, expected)
    unguided = janus.sample_images(janus.encode_prompt(PROMPTS), seeds(4, 1), SamplingRecipe(temperature=0))
    assert not torch.equal(unguided.drawings_BN[:, 0], expected)


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


# Pictures and their codes


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
