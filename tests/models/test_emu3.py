"""Emu3 beside transformers: the same likelihoods, drawings, verdicts and answers as a plain forward pass."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from unigap.models.base import SamplingRecipe
from unigap.models.emu3 import Emu3
from unigap.models.engine.tokens import NO_FORMS, YES_FORMS
from unigap.worlds.shapes.scenes import IMAGE_SIZE
from unigap.worlds.shapes.untrained.emu3 import EOS, FRAME_END, IMAGE_END, LINE_END, PAD, WRAPPER, make_processor

PROMPTS = [
    "a red circle",
    "a small red circle left of a large blue square",
    "six rings",
    "two black crosses and a ring",
]
QUESTIONS = ["is it red?", "does this image describe a small red circle left of a large blue square?", "six rings?"]
CODES = torch.randint(64, (4, 16), generator=torch.Generator().manual_seed(0))
SEEDS = torch.arange(4)[:, None]


def pictures(count: int) -> list[Image.Image]:
    noise = np.random.default_rng(0).integers(0, 256, (count, IMAGE_SIZE, IMAGE_SIZE, 3), dtype=np.uint8)
    return [Image.fromarray(row) for row in noise]


def pixels(images: list[Image.Image]) -> torch.Tensor:
    """The same pictures as the protocol takes them, in [-1, 1]."""
    rows = [torch.from_numpy(np.array(image)).permute(2, 0, 1) for image in images]
    return torch.stack(rows).float() / 127.5 - 1


def word(emu3: Emu3, name: str) -> int:
    """Its id in the config's vocabulary map."""
    found: int = emu3.net.config.vocabulary_map[name]
    return found


def code_words(emu3: Emu3) -> list[int]:
    return [word(emu3, f"<|visual token {code:06d}|>") for code in range(64)]


def to_draw(emu3: Emu3, texts: list[str]) -> Any:
    """What a user of transformers gives the model to have pictures drawn."""
    return emu3.processor(
        text=texts, return_for_image_generation=True, image_area=IMAGE_SIZE**2, padding=True, return_tensors="pt"
    )


def plain_inputs(emu3: Emu3, image: Image.Image, question: str, answer: str = "") -> dict[str, torch.Tensor]:
    """What a user of transformers does: chat template, processor, picture."""
    content = [{"type": "image"}, {"type": "text", "text": question}]
    chat = emu3.processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    return dict(emu3.processor(text=[chat + answer], images=[image], return_tensors="pt"))


# Drawing


def test_image_logps_are_those_of_a_plain_forward_pass(emu3: Emu3) -> None:
    found_BM = emu3.image_logps(emu3.encode_prompt(PROMPTS), CODES)
    words = code_words(emu3)
    for text, code_M, found_M in zip(PROMPTS, CODES, found_BM, strict=True):
        ids = to_draw(emu3, [text])["input_ids"][0].tolist()
        expected = []
        for place, code in enumerate(code_M.tolist()):
            if place and place % 4 == 0:
                ids.append(word(emu3, LINE_END))
            logits_V = emu3.net(input_ids=torch.tensor([ids])).logits[0, -1, words]
            expected.append(logits_V.log_softmax(-1)[code])
            ids.append(words[code])
        torch.testing.assert_close(found_M, torch.stack(expected), atol=1e-5, rtol=0)


@pytest.mark.parametrize("cfg", [1.0, 3.0])
def test_greedy_codes_are_those_that_transformers_generates(emu3: Emu3, cfg: float) -> None:
    inputs = to_draw(emu3, PROMPTS)
    rows, columns = inputs.pop("image_sizes")[0]
    written, codes = rows * (columns + 1), code_words(emu3)
    ending = [word(emu3, name) for name in (FRAME_END, IMAGE_END, EOS, PAD)]

    def legal(_: int, ids: torch.Tensor) -> list[int]:
        place = len(ids) - int((ids == word(emu3, WRAPPER)).nonzero())
        if place > written:
            return [ending[min(place - written, 4) - 1]]
        return codes if place % (columns + 1) else [word(emu3, LINE_END)]

    nothing = to_draw(emu3, [""] * 4)
    guided = {
        "guidance_scale": cfg,
        "negative_prompt_ids": nothing["input_ids"],
        "negative_prompt_attention_mask": nothing["attention_mask"],
    }
    out = emu3.net.generate(
        **inputs,
        **(guided if cfg > 1 else {}),
        do_sample=False,
        max_new_tokens=written + 3,
        prefix_allowed_tokens_fn=legal,
    )
    image = out[:, inputs["input_ids"].shape[1] :]
    expected = emu3.net.vocabulary_mapping.convert_bpe2img(image[:, :-3].view(4, rows, columns + 1)).flatten(1)
    drawn = emu3.sample_images(emu3.encode_prompt(PROMPTS), SEEDS, SamplingRecipe(temperature=0, cfg=cfg))
    assert torch.equal(drawn.drawings_BN[:, 0], expected.long())
    plain = emu3.net.decode_image_tokens(image_tokens=image, height=rows, width=columns)
    pixels_BCHW = ((plain * 0.4 + 0.5) * 2 - 1).clamp(-1, 1)
    torch.testing.assert_close(emu3.decode(drawn.drawings_BN[:, 0]), pixels_BCHW, atol=1e-5, rtol=0)


def test_a_prompt_is_read_once_and_so_is_each_code_and_each_end_of_a_line(emu3: Emu3) -> None:
    tokens: list[tuple[int, ...]] = []
    first = emu3.core.text_model.layers[0].mlp
    hook = first.register_forward_pre_hook(lambda module, args: tokens.append(tuple(args[0].shape[:-1])))
    try:
        prompt = emu3.encode_prompt(PROMPTS[:2])
        emu3.sample_images(prompt, torch.arange(6).view(2, 3), SamplingRecipe(cfg=2.0))
        emu3.image_logps(prompt, CODES)
    finally:
        hook.remove()
    length = prompt.ids_BL.shape[1]
    # guidance doubles; the last code and the end of its line are not read
    assert tokens == [(4, length), *[(12,)] * (15 + 3), (2, length + 2 * (15 + 3))]


def test_a_prompt_is_what_emu3_expects(emu3: Emu3) -> None:
    prompt, tokens = emu3.encode_prompt(["six rings", "a red circle"]), emu3.processor.tokenizer
    expected = to_draw(emu3, ["six rings", "a red circle"])
    assert torch.equal(prompt.ids_BL, expected["input_ids"])
    assert torch.equal(prompt.mask_BL, expected["attention_mask"])
    start = ["<|image start|>", "4", "*", "4", "<|image token|>"]
    null = [PAD, PAD, PAD, tokens.bos_token, *start]
    assert [tokens.convert_ids_to_tokens(row) for row in prompt.uncond_BL] == [null, null]
    assert tokens.convert_ids_to_tokens(prompt.ids_BL[1]) == [tokens.bos_token, "a", "red", "circle", *start]


def test_dropout_that_the_config_turns_on_is_off(new_emu3: Any) -> None:
    model = new_emu3()
    assert model.net.config.text_config.attention_dropout == 0.1
    expected = model.image_logps(model.encode_prompt(PROMPTS), CODES)
    model.trunk.train()
    assert torch.equal(model.image_logps(model.encode_prompt(PROMPTS), CODES), expected)


# Pictures


def test_pictures_have_the_codes_that_transformers_gives_them(emu3: Emu3) -> None:
    images = pictures(2)
    inputs = emu3.processor.image_processor(images, return_tensors="pt")
    found = emu3.core.vqmodel.encode(inputs["pixel_values"], inputs["image_sizes"], return_dict=True).image_tokens
    assert torch.equal(emu3.encode(pixels(images)), torch.stack(found).flatten(1))
    assert len(torch.stack(found).unique()) > 3


def test_an_area_sets_the_size_of_drawings_and_of_what_is_looked_at(emu3: Emu3, new_emu3: Any) -> None:
    small = new_emu3(image_area=16 * 16)
    drawn = small.sample_images(small.encode_prompt(PROMPTS[:1]), SEEDS[:1], SamplingRecipe())
    assert drawn.drawings_BN.shape == (1, 1, 4) and small.image_tokens == 4
    assert small.decode(drawn.drawings_BN[0]).shape == (1, 3, 16, 16)
    assert small.encode(pixels(pictures(2))).shape == (2, 4)
    tokens = small.processor.tokenizer
    assert tokens.convert_ids_to_tokens(small.encode_prompt(PROMPTS[:1]).ids_BL[0])[-4:-1] == ["2", "*", "2"]
    assert small.drawing_bytes(SamplingRecipe()) * 4 == emu3.drawing_bytes(SamplingRecipe())
    assert small.weights_digest() != emu3.weights_digest()
    assert small.drawing_digest() == emu3.drawing_digest()
    with pytest.raises(ValueError, match="image_area 10: 0 x 0 codes"):
        new_emu3(image_area=10)
    small.processor.image_processor.max_pixels = 10**6
    with pytest.raises(ValueError, match="image_area 518400: 90 x 90 codes; the context holds 256 tokens"):
        Emu3.from_parts(small.net, small.processor)


# Looking


@pytest.fixture(params=[False, True], ids=["image first", "question first"])
def asked(request: pytest.FixtureRequest, new_emu3: Any) -> Any:
    """A model whose chat template shows the image before the question, as Emu3's does, and one that shows it behind."""
    model = new_emu3()
    words = list(model.processor.tokenizer.get_vocab())
    model.processor.chat_template = make_processor(words, question_first=request.param).chat_template
    return model


def test_judge_logits_are_those_of_a_plain_forward_pass(asked: Emu3) -> None:
    emu3, images = asked, pictures(2)
    packed_BQ = emu3.judge_logit(pixels(images), [QUESTIONS, QUESTIONS[::-1]])
    tokens = emu3.processor.tokenizer
    yes, no = (
        sorted({ids[0] for f in forms if len(ids := tokens.encode(f, add_special_tokens=False)) == 1})
        for forms in (YES_FORMS, NO_FORMS)
    )
    for row, questions in enumerate((QUESTIONS, QUESTIONS[::-1])):
        for column, question in enumerate(questions):
            logp_V = emu3.net(**plain_inputs(emu3, images[row], question)).logits[0, -1].log_softmax(-1)
            expected = logp_V[yes].exp().sum().log() - logp_V[no].exp().sum().log()
            torch.testing.assert_close(packed_BQ[row, column], expected, atol=1e-5, rtol=0)


def test_answer_logps_are_those_of_a_plain_forward_pass(asked: Emu3) -> None:
    emu3, images = asked, pictures(2)
    questions = [["is it red?", "what does this image show?"], ["what is it?", "six rings?"]]
    answers = [["yes", "a small red circle and a ring"], ["two black crosses", "no"]]
    logp_BQT, mask_BQT = emu3.text_logps(pixels(images), questions, answers)
    assert logp_BQT.shape == mask_BQT.shape and mask_BQT.dtype == torch.bool
    assert (logp_BQT[~mask_BQT] == 0).all()
    for row in range(2):
        for column in range(2):
            unanswered = plain_inputs(emu3, images[row], questions[row][column])
            inputs = plain_inputs(emu3, images[row], questions[row][column], f" {answers[row][column]}{EOS}")
            start = unanswered["input_ids"].shape[1]
            logp_SV = emu3.net(**inputs).logits[0, start - 1 : -1].log_softmax(-1)
            expected = logp_SV.gather(1, inputs["input_ids"][0, start:, None])[:, 0]
            torch.testing.assert_close(logp_BQT[row, column][mask_BQT[row, column]], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (" ", "empty"),
        ("a red <|image start|> circle", "'<|image start|>' is a special token of the model's template; remove it"),
        ("a <image> circle", "'<image>' is a special token of the model's template; remove it"),
        ("a red elephant", "the model has no word 'elephant'; reword it"),
        ("a red circle " * 90, "the context holds 2"),
    ],
)
def test_a_text_the_model_cannot_read_is_refused(emu3: Emu3, text: str, message: str) -> None:
    for ask in (
        lambda: emu3.encode_prompt([text]),
        lambda: emu3.judge_logit(torch.zeros(1, 3, IMAGE_SIZE, IMAGE_SIZE), [[text]]),
    ):
        with pytest.raises(ValueError) as caught:
            ask()
        assert message in str(caught.value) and len(str(caught.value).splitlines()) == 1


def test_a_chat_template_that_hides_the_image_is_refused(new_emu3: Any) -> None:
    model = new_emu3()
    model.processor.chat_template = "{{ messages[0]['content'][-1]['text'] }}"
    with pytest.raises(ValueError, match="has no image; give the checkpoint the template of Emu3-Chat"):
        model.judge_logit(torch.zeros(1, 3, IMAGE_SIZE, IMAGE_SIZE), [["is it red?"]])
