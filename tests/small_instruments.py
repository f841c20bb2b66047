"""Small random networks that measure images, saved to disk with their real processors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from small_vqa import _save, tokenizer
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    BertTokenizerFast,
    BlipConfig,
    BlipForQuestionAnswering,
    BlipProcessor,
    BlipTextConfig,
    BlipVisionConfig,
    DetrConfig,
    DetrForObjectDetection,
    DPTConfig,
    DPTForDepthEstimation,
    Mask2FormerConfig,
    Mask2FormerForUniversalSegmentation,
    Owlv2Config,
    Owlv2ForObjectDetection,
    Owlv2Processor,
    ResNetConfig,
    SwinConfig,
)
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil
from transformers.models.detr.image_processing_pil_detr import DetrImageProcessorPil
from transformers.models.dpt.image_processing_pil_dpt import DPTImageProcessorPil
from transformers.models.mask2former.image_processing_pil_mask2former import Mask2FormerImageProcessorPil
from transformers.models.owlv2.image_processing_pil_owlv2 import Owlv2ImageProcessorPil

CLASSES = ("circle", "square", "triangle", "mouse")
SQUARE = {"height": 32, "width": 32}


def labels(*names: str) -> dict[str, Any]:
    return {"id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)}}


def save_detr(folder: Path, *names: str) -> None:
    """An object detector of five boxes, mostly of the first class."""
    backbone = ResNetConfig(embedding_size=8, hidden_sizes=[8] * 4, depths=[1] * 4, out_features=["stage4"])
    config = DetrConfig(
        use_timm_backbone=False, use_pretrained_backbone=False, backbone=None, backbone_config=backbone, d_model=16,
        encoder_layers=1, decoder_layers=1, encoder_ffn_dim=16, decoder_ffn_dim=16, encoder_attention_heads=2,
        decoder_attention_heads=2, num_queries=5, **labels(*(names or CLASSES)),
    )  # fmt: skip
    net = DetrForObjectDetection(config)
    net.class_labels_classifier.bias.data[0] = 4.0
    _save(net, DetrImageProcessorPil(size={"shortest_edge": 32, "longest_edge": 64}), folder)


def save_mask2former(folder: Path) -> None:
    """A network for instance segmentation; transformers needs scipy to build it."""
    backbone = SwinConfig(
        image_size=32, patch_size=4, embed_dim=8, depths=[1] * 4, num_heads=[1] * 4, window_size=4,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )  # fmt: skip
    config = Mask2FormerConfig(
        backbone_config=backbone, feature_size=32, mask_feature_size=32, hidden_dim=32, encoder_feedforward_dim=16,
        dim_feedforward=16, encoder_layers=1, decoder_layers=2, num_attention_heads=2, num_queries=8,
        **labels(*CLASSES),
    )  # fmt: skip
    size = {"shortest_edge": 64, "longest_edge": 128}
    net = Mask2FormerForUniversalSegmentation(config)
    _save(net, Mask2FormerImageProcessorPil(size=size, ignore_index=255), folder)


def save_owlv2(folder: Path) -> None:
    """An open-vocabulary detector of 16 boxes."""
    words = tokenizer()
    tower = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {
        **tower, "vocab_size": len(words), "max_position_embeddings": 16, "pad_token_id": 0, "bos_token_id": 1,
        "eos_token_id": 2,
    }  # fmt: skip
    vision = {**tower, "image_size": 32, "patch_size": 8}
    config = Owlv2Config(text_config=text, vision_config=vision, projection_dim=32)
    words.model_max_length = 16
    _save(Owlv2ForObjectDetection(config), Owlv2Processor(Owlv2ImageProcessorPil(size=SQUARE), words), folder)


def save_depth(folder: Path) -> None:
    """A depth estimator."""
    config = DPTConfig(
        hidden_size=16, num_hidden_layers=4, num_attention_heads=2, intermediate_size=16, image_size=32, patch_size=8,
        backbone_out_indices=[0, 1, 2, 3], neck_hidden_sizes=[8] * 4, fusion_hidden_size=8,
        reassemble_factors=[4, 2, 1, 0.5],
    )  # fmt: skip
    _save(DPTForDepthEstimation(config), DPTImageProcessorPil(size=SQUARE), folder)


def save_blip(folder: Path) -> None:
    """A BLIP whose questions begin with the encoder's own token, the one after the decoder's first."""
    plain = ["[PAD]", "[UNK]", "[SEP]", "[MASK]", "?", "a", "green", "blue", "red", "bench", "bowl", "yes", "no"]
    vocabulary = {word: i for i, word in enumerate([*plain, "[DEC]", "[CLS]"])}
    core = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    core.normalizer, core.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    marks = [(mark, vocabulary[mark]) for mark in ("[CLS]", "[SEP]")]
    core.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", special_tokens=marks)
    words = BertTokenizerFast(tokenizer_object=core)
    tower = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = BlipTextConfig(
        **tower, vocab_size=len(vocabulary), encoder_hidden_size=32, projection_dim=16, max_position_embeddings=40,
        bos_token_id=vocabulary["[DEC]"], pad_token_id=0, sep_token_id=2, eos_token_id=2, is_decoder=True,
    )  # fmt: skip
    vision = BlipVisionConfig(**tower, image_size=32, patch_size=8)
    config = BlipConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=16)
    _save(BlipForQuestionAnswering(config), BlipProcessor(BlipImageProcessorPil(size=SQUARE), words), folder)
