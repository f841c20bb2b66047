"""T2I-CompBench++: BLIP-VQA for attributes, a detector for relations and numbers, CLIPScore for actions."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image

from unigap.bench.base import Benchmark, device_of
from unigap.bench.objects import object_row
from unigap.evaluation.scoring.compbench import DETECTED_AS
from unigap.files.images import to_image
from unigap.instruments import BlipVqa, DepthMap, Detector, NamedDetector
from unigap.judges import ClipScoreJudge
from unigap.models.base import UnifiedModel
from unigap.records import Candidate, Prompt

ATTRIBUTES = ("color", "shape", "texture")
OBJECTS = ("spatial", "3d_spatial", "numeracy")
CLIP = "openai/clip-vit-base-patch32"


class CompBench(Benchmark):
    """T2I-CompBench++ (arXiv 2307.06350), all categories except complex.

    Args:
        attributes: BLIP-VQA; None takes the published weights.
        detector: The detector; None takes OWLv2, which finds any noun.
        depth: The depth estimator for relations such as "behind"; None takes DPT-hybrid.
        similarity: CLIP for non-spatial relations; None takes ViT-B/32, the published one. Its threshold is not used.
    """

    title = "T2I-CompBench++"
    rule = "compbench"
    differs = (
        "The published detector is UniDet, whose code is not in transformers; the default here is OWLv2. Its "
        "confidences are lower, and they are half of a spatial score. The published noun phrases are spaCy's; here "
        "they are parsed from the prompts that follow the template, and the others of color, shape and texture are "
        "left out. "
        "Prompts of complex are left out: their parts need spaCy and lists that are not published. BLIP-VQA, CLIP "
        "ViT-B/32 and the rules are the published ones, without the published program's swapped axes in depth maps."
    )

    def __init__(
        self,
        attributes: BlipVqa | None = None,
        detector: Detector | None = None,
        depth: DepthMap | None = None,
        similarity: ClipScoreJudge | None = None,
    ) -> None:
        self.attributes, self.detector = attributes or BlipVqa(), detector or NamedDetector()
        self.depth, self.similarity = depth or DepthMap(), similarity or ClipScoreJudge(CLIP, 0.0)

    @property
    def name(self) -> str:
        return f"compbench-{self.detector.name}"

    def wanted(self, prompts: Sequence[Prompt]) -> list[Prompt]:
        strange = next(
            (p for p in prompts if p.category not in (*ATTRIBUTES, *OBJECTS, "non_spatial", "complex")), None
        )
        if strange:
            raise ValueError(f"prompt {strange.id!r} is not of T2I-CompBench++; give --prompts t2i-compbench:FOLDER")
        chosen = [prompt for prompt in prompts if _is_scored(prompt)]
        if not chosen:
            raise ValueError("no prompt follows a template of its category, so none can be scored; give other prompts")
        left_out = Counter(prompt.category for prompt in prompts if not _is_scored(prompt))
        if left_out:
            counted = ", ".join(f"{number} of {name}" for name, number in left_out.items())
            print(f"note: prompts without a template are left out: {counted}", file=sys.stderr)
        known = self.detector.classes()
        if known is not None:
            asked = {name for prompt in chosen for name in _nouns(prompt)}
            unknown = sorted(asked - known)
            if unknown:
                raise ValueError(
                    f"detector {self.detector.checkpoint!r} does not know {len(unknown)} of the {len(asked)} nouns of "
                    f"the prompts, first {unknown[0]!r}; take unigap.instruments.NamedDetector"
                )
        return chosen

    def answer(
        self, model: UnifiedModel, candidates: Sequence[Candidate], pixels_BCHW: torch.Tensor
    ) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        for i, candidate in enumerate(candidates):
            category = candidate.prompt.category
            if category == "non_spatial":
                score = self.similarity.logits(model, [candidate], pixels_BCHW[i : i + 1])
                rows.append({"similarity": (score.item() + self.similarity.threshold) / 100})
            elif category in ATTRIBUTES:
                image = to_image(pixels_BCHW[i])
                phrases = json.loads(candidate.prompt.truth)["phrases"]
                rows.append({"phrases": self.attributes.p_yes(image, phrases, device_of(model))})
            else:
                rows.append({"objects": self._objects(candidate.prompt, to_image(pixels_BCHW[i]), device_of(model))})
        return rows

    def _objects(self, prompt: Prompt, image: Image.Image, device: torch.device) -> list[dict[str, Any]]:
        found = [thing.detection for thing in self.detector.find(image, _nouns(prompt), device)]
        if prompt.category != "3d_spatial":
            return [object_row(detection) for detection in found]
        depths = self.depth.depths(image, [detection.box for detection in found], device)
        return [object_row(detection, depth=depth) for detection, depth in zip(found, depths, strict=True)]


def _is_scored(prompt: Prompt) -> bool:
    return prompt.category == "non_spatial" or (prompt.category != "complex" and bool(prompt.truth))


def _nouns(prompt: Prompt) -> list[str]:
    """Return the classes to look for in an image of a prompt."""
    if prompt.category not in OBJECTS:
        return []
    nouns = [item["class"] for item in json.loads(prompt.truth)["include"]]
    return list(dict.fromkeys(DETECTED_AS.get(noun, noun) for noun in nouns))
