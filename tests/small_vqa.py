"""Small random models that answer questions about images, saved to disk with their real processors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import nn
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPProcessor,
    CLIPTextConfig,
    CLIPVisionConfig,
    Dinov2Config,
    Dinov2Model,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil
from transformers.models.qwen2_5_vl.configuration_qwen2_5_vl import Qwen2_5_VLTextConfig, Qwen2_5_VLVisionConfig
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from unigap.worlds.shapes.grammar import WORDS

SPEECH = ("Does", "this", "figure", "show", "Please", "answer", "or", "assistant", "user", '"', "?", ".", ":")
START, PLACE, END, VIDEO = "<|vision_start|>", "<|image_pad|>", "<|vision_end|>", "<|video_pad|>"
IMAGES = {
    "llava": LlavaImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}),
    "qwen": Qwen2VLImageProcessorPil(patch_size=4, min_pixels=16 * 16, max_pixels=64 * 64),
}


def tokenizer(*marks: str) -> PreTrainedTokenizerFast:
    """One token a word; it pads on the side a judge cannot use."""
    words = ["<pad>", "<s>", "</s>", "<unk>", *marks, *dict.fromkeys([*SPEECH, *WORDS]), "Yes", "yes", "No", "no"]
    core = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    core.normalizer = normalizers.Sequence([])
    core.pre_tokenizer = pre_tokenizers.Split(Regex(r"[A-Za-z]+|[^A-Za-z ]"), behavior="removed", invert=True)
    core.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", words.index("<s>"))])
    special = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    made = PreTrainedTokenizerFast(tokenizer_object=core, padding_side="right", **special)
    made.add_special_tokens({"extra_special_tokens": list(marks)})
    return made


def template(image: str, first: str = "") -> str:
    return (
        f"{first}{{% for message in messages %}}user: {{% for part in message['content'] %}}"
        f"{{% if part['type'] == 'image' %}}{image}{{% else %}}{{{{ part['text'] }}}}{{% endif %}}{{% endfor %}}"
        "{% endfor %}{% if add_generation_prompt %} assistant:{% endif %}"
    )


def save_llava(folder: Path, width: int = 32) -> None:
    """Its template leaves the first token to the tokenizer."""
    words = tokenizer("<image>")
    vision = CLIPVisionConfig(
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=32,
        patch_size=8,
    )
    text = LlamaConfig(
        vocab_size=len(words),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=4,
    )
    image = words.convert_tokens_to_ids("<image>")
    config = LlavaConfig(vision_config=vision, text_config=text, image_token_index=image, image_seq_length=16)
    made = LlavaProcessor(IMAGES["llava"], words, 8, "default", template("<image>"), num_additional_image_tokens=1)
    _save(LlavaForConditionalGeneration(config), made, folder)


def save_qwen(folder: Path) -> None:
    """Positions in three dimensions, images of any size, and a template that writes the first token itself."""
    words = tokenizer(START, PLACE, END, VIDEO)
    start, image, end, video = words.convert_tokens_to_ids([START, PLACE, END, VIDEO])
    text = Qwen2_5_VLTextConfig(
        vocab_size=len(words), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, rope_parameters={"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]},
        bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    vision = Qwen2_5_VLVisionConfig(
        depth=2, hidden_size=32, intermediate_size=64, num_heads=2, patch_size=4, window_size=16, out_hidden_size=32,
        fullatt_block_indexes=[1],
    )  # fmt: skip
    config = Qwen2_5_VLConfig(
        text_config=text, vision_config=vision, image_token_id=image, video_token_id=video,
        vision_start_token_id=start, vision_end_token_id=end,
    )  # fmt: skip
    made = Qwen2_5_VLProcessor(IMAGES["qwen"], words, chat_template=template(START + PLACE + END, "<s>"))
    _save(Qwen2_5_VLForConditionalGeneration(config), made, folder)


def _save(net: nn.Module, processor: Any, folder: Path) -> None:
    for parameter in net.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.3)
    net.save_pretrained(folder)  # type: ignore[operator]
    processor.save_pretrained(folder)


def save_clip(folder: Path) -> None:
    """Save a CLIP of 32-pixel images and 77 tokens."""
    words = tokenizer()
    text = CLIPTextConfig(
        vocab_size=len(words), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        projection_dim=16, bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    vision = CLIPVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=8,
        projection_dim=16,
    )  # fmt: skip
    config = CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=16)
    images = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    _save(CLIPModel(config), CLIPProcessor(images, words), folder)


def save_dino(folder: Path) -> None:
    """Save a DINOv2 of 28-pixel images."""
    config = Dinov2Config(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, mlp_ratio=2, image_size=28, patch_size=14
    )  # fmt: skip
    Dinov2Model(config).save_pretrained(folder)
