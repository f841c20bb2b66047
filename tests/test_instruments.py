"""Networks that measure images: small random ones of the real classes, and what is computed from their output."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from small_instruments import CLASSES, save_blip, save_detr, save_mask2former
from small_runs import expect_error
from small_vqa import save_clip

from unigap.__main__ import main
from unigap.evaluation.scoring.answers import Detection
from unigap.instruments import BlipVqa, BoxDetector, ClipColors, Found, InstanceDetector
from unigap.instruments.clip_colors import COLORS, PHRASINGS, crop
from unigap.instruments.named_detector import distinct_objects

NOISE = Image.fromarray((np.random.RandomState(0).rand(40, 48, 3) * 255).astype(np.uint8))


def thing(box: tuple[float, float, float, float], score: float = 0.9, name: str = "circle") -> Found:
    return Found(Detection(name, box, score))


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def test_the_crop_of_a_masked_object_is_grey_around_it() -> None:
    mask_HW = np.zeros((40, 48), dtype=bool)
    mask_HW[10:20, 8:16] = True
    mask_HW[10, 8] = False
    cropped = np.asarray(crop(NOISE, Found(Detection("circle", (8, 10, 16, 20), 0.9), mask_HW)))
    assert cropped.shape == (10, 8, 3) and cropped[0, 0].tolist() == [0x99] * 3
    assert (cropped[1:] == np.asarray(NOISE)[11:20, 8:16]).all()
    assert crop(NOISE, thing((47.6, 39.6, 47.9, 39.9))).size == (1, 1)


def test_colors_are_compared_with_the_mean_of_three_phrasings(tmp_path: Path) -> None:
    save_clip(tmp_path)
    colors = ClipColors(str(tmp_path))
    found = [thing((0, 0, 20, 20)), thing((20, 10, 48, 40)), thing((5, 5, 30, 12))]
    told = colors.colors(NOISE, found, "circle", "cpu")
    net, processor = colors.loaded("cpu")

    def unit(features: Any) -> torch.Tensor:
        return features.pooler_output / features.pooler_output.norm(dim=-1, keepdim=True)

    with torch.no_grad():
        means = []
        for color in COLORS:
            texts = [phrasing.format(color=color, name="circle") for phrasing in PHRASINGS]
            mean = unit(net.get_text_features(**processor(text=texts, padding=True, return_tensors="pt"))).mean(0)
            means.append(mean / mean.norm())
        crops = [NOISE.crop(tuple(map(int, shown.detection.box))) for shown in found]
        images = unit(net.get_image_features(**processor(images=crops, return_tensors="pt")))
    assert told == [COLORS[i] for i in (images @ torch.stack(means).T).argmax(1)]


def test_blip_answers_as_its_own_generation_begins(tmp_path: Path) -> None:
    save_blip(tmp_path)
    blip = BlipVqa(str(tmp_path))
    phrases = ["a green bench", "a blue bowl ? red"]
    told = blip.p_yes(NOISE, phrases, "cpu")
    net, processor = blip.loaded("cpu")
    yes, no = processor.tokenizer.convert_tokens_to_ids(["yes", "no"])
    for phrase, p_yes in zip(phrases, told, strict=True):
        inputs = processor(images=NOISE, text=f"{phrase}?", return_tensors="pt")
        # in this vocabulary the question begins with the encoder's own token already
        made = net.generate(**inputs, max_new_tokens=1, output_logits=True, return_dict_in_generate=True)
        logits = made.logits[0][0]
        assert p_yes == pytest.approx(torch.sigmoid(logits[yes] - logits[no]).item(), abs=1e-4)


def test_boxes_lie_in_the_image_and_are_sorted(tmp_path: Path) -> None:
    save_detr(tmp_path)
    detector = BoxDetector(str(tmp_path))
    found = [shown.detection for shown in detector.find(NOISE, [], "cpu")]
    assert found and detector.classes() == frozenset(CLASSES)
    assert [shown.score for shown in found] == sorted((shown.score for shown in found), reverse=True)
    for left, top, right, bottom in (shown.box for shown in found):
        assert 0 <= left < right <= 48 and 0 <= top < bottom <= 40
    assert not BoxDetector(str(tmp_path), confidence=0.99999).find(NOISE, [], "cpu")


def test_masks_are_as_large_as_the_image_and_the_box_is_theirs(tmp_path: Path) -> None:
    pytest.importorskip("scipy", reason="transformers builds Mask2Former with scipy")
    save_mask2former(tmp_path)
    detector = InstanceDetector(str(tmp_path), confidence=0.01)
    found = detector.find(NOISE, [], "cpu")
    assert found
    for shown in found:
        assert shown.mask_HW is not None and shown.mask_HW.shape == (40, 48)
        left, top, right, bottom = map(int, shown.detection.box)
        assert shown.mask_HW.sum() == shown.mask_HW[top:bottom, left:right].sum() > 0
        assert shown.mask_HW[:, left].any() and shown.mask_HW[bottom - 1].any()
    assert not InstanceDetector(str(tmp_path), confidence=0.99).find(NOISE, [], "cpu")


def test_boxes_of_one_class_that_overlap_are_one_object() -> None:
    first, same, apart = thing((0, 0, 10, 10)), thing((1, 0, 10, 10), 0.8), thing((20, 0, 30, 10), 0.7)
    other = thing((0, 0, 10, 10), 0.6, "square")
    assert distinct_objects([first, same, apart, other], 0.5) == [first, apart, other]
    assert distinct_objects([first, same, apart, other], 1.0) == [first, same, apart, other]


def test_a_missing_package_is_named_with_its_command(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "scipy" else find(name))
    status = main(["bench", "geneval", "geneval:nothing.jsonl"])
    expect_error(status, capsys, "needs scipy", "pip install 'unigap[bench]'")
