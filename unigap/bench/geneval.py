"""GenEval: objects, counts, colours and positions by a detector and CLIP, without mmdet."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from unigap.bench.base import Benchmark, device_of
from unigap.bench.objects import object_row
from unigap.evaluation.scoring.geneval import kept
from unigap.files.images import to_image
from unigap.instruments import ClipColors, Detector, Found, InstanceDetector
from unigap.models.base import UnifiedModel
from unigap.records import Candidate, Prompt

GENEVAL_NAMES = {"mouse": "computer mouse", "remote": "tv remote", "keyboard": "computer keyboard"}
"""GenEval's name of a class of COCO, where they differ."""


class GenEval(Benchmark):
    """GenEval (arXiv 2310.11513) by any detector that knows the classes of the prompts.

    Args:
        detector: The detector; None takes Mask2Former (Swin-S, COCO instances), the published architecture.
        colors: The colour classifier; None takes CLIP ViT-L/14, the published one.
    """

    title = "GenEval"
    rule = "geneval"
    is_verdict = True
    differs = (
        "The published detector is Mask2Former (Swin-S) of mmdet. The default here is the same architecture, trained "
        "on the same images by its authors; the weights differ, and masks are cut at a quarter of the resolution. The "
        "thresholds (0.3, and 0.9 for counting), the rules, CLIP ViT-L/14, its phrasings and the grey crops are the "
        "published ones. A detector without masks classifies the colour of the whole box. Any other detector has other "
        "confidences, so its scores compare checkpoints with each other and not with published figures."
    )

    def __init__(self, detector: Detector | None = None, colors: ClipColors | None = None) -> None:
        self.detector, self.colors = detector or InstanceDetector(), colors or ClipColors()

    @property
    def name(self) -> str:
        return f"geneval-{self.detector.name}"

    def wanted(self, prompts: Sequence[Prompt]) -> list[Prompt]:
        truths = [_truth(prompt) for prompt in prompts]
        known = self.detector.classes()
        if known is not None:
            asked = {item["class"] for truth in truths for item in (*truth["include"], *truth["exclude"])}
            unknown = sorted(asked - {GENEVAL_NAMES.get(name, name) for name in known})
            if unknown:
                raise ValueError(
                    f"detector {self.detector.checkpoint!r} does not know {len(unknown)} of the {len(asked)} classes "
                    f"of the prompts, first {unknown[0]!r}; take one trained on COCO, or a NamedDetector"
                )
        return list(prompts)

    def answer(
        self, model: UnifiedModel, candidates: Sequence[Candidate], pixels_BCHW: torch.Tensor
    ) -> list[dict[str, Any]]:
        rows = zip(candidates, pixels_BCHW, strict=True)
        return [self._answer(candidate.prompt, pixels, device_of(model)) for candidate, pixels in rows]

    def _answer(self, prompt: Prompt, pixels_CHW: torch.Tensor, device: torch.device) -> dict[str, Any]:
        truth, image = _truth(prompt), to_image(pixels_CHW)
        names = list(dict.fromkeys(item["class"] for item in (*truth["include"], *truth["exclude"])))
        found = [_in_words_of_geneval(thing) for thing in self.detector.find(image, names, device)]
        colored = [item for item in truth["include"] if "color" in item]
        colors: dict[int, str] = {}
        for item in {item["class"]: item for item in colored}.values():
            # the rule asks for the colours of the most confident objects only
            counted = kept([thing.detection for thing in found], prompt.category).get(item["class"], ())
            most = max(other["count"] for other in colored if other["class"] == item["class"])
            places = [_place(found, detection) for detection in counted[:most]]
            named = self.colors.colors(image, [found[place] for place in places], item["class"], device)
            colors |= dict(zip(places, named, strict=True))
        return {"objects": [object_row(thing.detection, colors.get(i, "")) for i, thing in enumerate(found)]}


def _place(found: Sequence[Found], detection: object) -> int:
    return next(place for place, thing in enumerate(found) if thing.detection is detection)


def _in_words_of_geneval(thing: Found) -> Found:
    name = thing.detection.name
    return replace(thing, detection=replace(thing.detection, name=GENEVAL_NAMES.get(name, name)))


def _truth(prompt: Prompt) -> dict[str, Any]:
    truth: dict[str, Any] = json.loads(prompt.truth or "{}")
    if not {"include", "exclude"} <= truth.keys():
        raise ValueError(f"prompt {prompt.id!r} has no GenEval truth; give --prompts geneval:FILE")
    return truth
