"""What each family is asked, id by id: what its own processor or its authors' code builds, published options on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from small_showo import small_showo
from transformers import Emu3Processor, JanusProcessor

from benchmarks.byte_words import byte_tokenizer
from benchmarks.published import EMU3_TEMPLATE, emu3_processor, janus_processor
from unigap.models.emu3.chat_template import Emu3ChatTemplate
from unigap.models.engine.chat_template import ChatTemplate
from unigap.models.engine.packed_questions import pack
from unigap.models.janus import Janus
from unigap.models.janus.chat_template import JanusChatTemplate
from unigap.models.showo.chat_template import ShowOChatTemplate
from unigap.worlds.shapes.untrained.janus import make_model, make_processor

QUESTIONS = ["Does this image describe a red circle?", "Is it blue", "Two rings? Look  twice.\n"]
PROMPTS = ["a red circle.", "Zwei Ringe, größer"]


def picture(side: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8))


def packed_ids(template: ChatTemplate, prefix: Sequence[int], questions: Sequence[str]) -> list[list[int]]:
    """The ids that stand before the answer of each of several questions packed behind one prefix, as the model sees."""
    rows = pack(len(prefix), [[template.question_ids(question) for question in questions]], 0, torch.device("cpu"))
    ids_S = torch.cat([torch.tensor(prefix), rows.ids_BT[0]])
    seen = [torch.isin(rows.segment_BS[0], torch.tensor([0, number])) for number in range(1, len(questions) + 1)]
    places = [rows.position_BS[0][mask_S].tolist() for mask_S in seen]
    assert places == [list(range(len(place))) for place in places], "each is placed as if it were asked alone"
    return [ids_S[mask_S].tolist() for mask_S in seen]


def janus_question(processor: JanusProcessor, question: str) -> dict[str, torch.Tensor]:
    content = [{"type": "image"}, {"type": "text", "text": question}]
    chat = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    return dict(processor(text=[chat], images=[picture(32)], return_tensors="pt"))


@pytest.mark.parametrize("system", [True, False])
@pytest.mark.parametrize("questions", [QUESTIONS[:1], QUESTIONS])
def test_janus_is_asked_what_its_processor_builds(system: bool, questions: list[str]) -> None:
    processor = janus_processor(system)
    template = JanusChatTemplate(processor, context=4096)
    expected = [janus_question(processor, question)["input_ids"][0].tolist() for question in questions]
    assert packed_ids(template, template.image_prefix, questions) == expected
    said = processor.tokenizer.decode(expected[0])
    assert said.startswith("<s>You are a helpful language and vision assistant." if system else "<s><|User|>")


def test_janus_draws_what_its_processor_builds_whatever_it_is_asked_with() -> None:
    processor = janus_processor(system=True)
    chats = [
        processor.apply_chat_template(
            [{"role": "user", "content": [{"type": "text", "text": text}]}], add_generation_prompt=True
        )
        for text in PROMPTS
    ]
    expected = [processor(text=[chat], generation_mode="image")["input_ids"][0].tolist() for chat in chats]
    template = JanusChatTemplate(processor, context=4096)
    assert [template.prompt_ids(text) for text in PROMPTS] == expected
    assert processor.tokenizer.decode(expected[0]) == "<s><|User|>: a red circle.\n\n<|Assistant|>:<begin_of_image>"


def test_verdicts_with_the_system_prompt_are_those_of_a_plain_forward_pass() -> None:
    processor = janus_processor(system=True)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = make_model(processor, hidden_size=64, layers=2, vision_layers=1, n_codes=64).eval()
    net.config.text_config.max_position_embeddings = 4096
    janus = Janus.from_parts(net, processor)
    tokens = processor.tokenizer
    pixels_1CHW = torch.from_numpy(np.array(picture(32))).permute(2, 0, 1)[None].float() / 127.5 - 1
    for found, question in zip(janus.judge_logit(pixels_1CHW, [QUESTIONS])[0], QUESTIONS, strict=True):
        logit_V = net(**janus_question(processor, question)).logits[0, -1]
        yes, no = (
            logit_V[[tokens.encode(word)[1] for word in words]].logsumexp(0)
            for words in (("yes", " yes"), ("no", " no"))
        )
        torch.testing.assert_close(found, yes - no, atol=1e-5, rtol=0)


def test_the_embedded_janus_is_asked_without_system_prompt() -> None:
    shipped = Janus("shapes")
    assert not shipped.processor.use_default_system_prompt
    words = make_processor().tokenizer.convert_ids_to_tokens(shipped._template.image_prefix)
    assert words[:4] == ["<s>", "<|User|>", ":", "<begin_of_image>"]


def emu3_official(processor: Emu3Processor, chat: str, question: str, rows: int, columns: int) -> list[int]:
    """What the authors' ``Emu3Processor`` builds in mode ``U``, whose codes and ends of lines are left open here."""
    image = f"<|image start|>{rows}*{columns}<|image token|>" + "<image>" * (rows * (columns + 1))
    image += "<|extra_201|><|image end|>"
    text = "<|extra_203|>" + chat.format(image_prompt=image, text_prompt=question)
    return processor.tokenizer(text)["input_ids"]


@pytest.mark.parametrize("questions", [QUESTIONS[:1], QUESTIONS])
def test_emu3_is_asked_what_its_authors_code_builds(questions: list[str]) -> None:
    processor = emu3_processor(EMU3_TEMPLATE)
    template = Emu3ChatTemplate(processor, 4, 5, context=4096)
    official = "You are a helpful assistant. USER: {image_prompt}{text_prompt}. ASSISTANT:"
    expected = [emu3_official(processor, official, question, 4, 5) for question in questions]
    assert packed_ids(template, template.shared_prefix, questions) == expected
    assert len(template.shared_prefix) > 30, "the image stands before the question, and is shared"


@pytest.mark.parametrize(
    "template",
    [
        EMU3_TEMPLATE.replace("{% if message['role'] != 'system' %}", "").replace("{% endif %}", "", 1),
        EMU3_TEMPLATE.replace(
            "{% for message", "{% if messages[1] %}{{ raise_exception('no') }}{% endif %}{% for message", 1
        ),
    ],
    ids=["a system message is a turn", "no system message"],
)
def test_another_emu3_template_is_asked_as_it_is(template: str) -> None:
    processor = emu3_processor(template)
    template = Emu3ChatTemplate(processor, 4, 5, context=4096)
    plain = [emu3_official(processor, "USER: {image_prompt}{text_prompt} ASSISTANT:", q, 4, 5) for q in QUESTIONS]
    assert packed_ids(template, template.shared_prefix, QUESTIONS) == plain


def test_emu3_draws_what_its_processor_builds() -> None:
    processor = emu3_processor(EMU3_TEMPLATE)
    inputs = [processor(text=[text], return_for_image_generation=True, image_area=32 * 32) for text in PROMPTS]
    template = Emu3ChatTemplate(processor, 4, 4, context=4096)
    assert [template.prompt_ids(text) for text in PROMPTS] == [row["input_ids"][0] for row in inputs]


def test_show_o_is_asked_and_draws_what_its_authors_code_builds() -> None:
    named = {"pad_token": "[PAD]", "bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"}
    marks = ["<|soi|>", "<|eoi|>", "<|sov|>", "<|eov|>", "<|t2i|>", "<|mmu|>", "<|t2v|>", "<|v2v|>", "<|lvg|>"]
    words: Any = byte_tokenizer([*dict.fromkeys(named.values()), *marks], named)
    template = ShowOChatTemplate(words, small_showo().net.shape.question, image_tokens=16, context=4096)
    start, end = words.bos_token_id, words.eos_token_id
    (drawing,) = words.convert_tokens_to_ids(["<|t2i|>"])
    for text in PROMPTS:
        assert template.prompt_ids(text) == [drawing, start, *words(text)["input_ids"], end]
    for question in QUESTIONS:
        asked = words("USER: \n" + question + " ASSISTANT:")["input_ids"]
        assert template.question_ids(question) == [start, *asked]
