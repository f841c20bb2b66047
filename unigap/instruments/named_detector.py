"""Open-vocabulary detector: OWL-ViT and OWLv2 find objects by name, so any noun of a prompt can be asked for."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL import Image

from unigap.evaluation.scoring.boxes import iou
from unigap.instruments.base import Detector, Found, sorted_by_confidence
from unigap.instruments.box_detector import found_boxes
from unigap.models.files.config import check_family, model_type
from unigap.models.files.pretrained import Network

OWLV2 = "google/owlv2-base-patch16-ensemble"
FAMILIES = ("owlv2", "owlvit")
QUERY = "a photo of a {name}"


class NamedDetector(Detector):
    """OWL-ViT or OWLv2: detects the nouns of a prompt, with no list of classes.

    Of boxes of one class that overlap, only the most confident is kept.

    Args:
        checkpoint: Folder or hub id of an OWL-ViT or OWLv2 in transformers' layout.
        confidence: Least confidence of a stored detection, in (0, 1). OWLv2's confidences are low.
        overlap: Intersection over union, in (0, 1], above which two boxes of a class are one object.
        device: Device of the network; empty means the device of the model that is measured.
    """

    kind = "named"

    def __init__(
        self, checkpoint: str = OWLV2, confidence: float = 0.2, overlap: float = 0.5, device: str = ""
    ) -> None:
        if not 0 < overlap <= 1:
            raise ValueError(f"overlap must be in (0, 1], got {overlap}; 1 keeps all boxes")
        super().__init__(checkpoint, confidence, device)
        self.overlap = overlap

    def network(self) -> Network:
        from transformers import AutoModelForZeroShotObjectDetection, AutoProcessor

        check_family(self.checkpoint, model_type(self.checkpoint), FAMILIES)
        network = AutoModelForZeroShotObjectDetection
        return Network("an open-vocabulary detector", network, network.from_config, AutoProcessor)

    def classes(self) -> None:
        return None

    @torch.no_grad()
    def find(self, image: Image.Image, names: Sequence[str], device: torch.device | str) -> list[Found]:
        if not names:
            return []
        net, processor = self.loaded(device)
        queries = [QUERY.replace("{name}", name) for name in names]
        inputs = processor(text=[queries], images=[image], return_tensors="pt").to(net.device)
        (result,) = processor.post_process_grounded_object_detection(
            net(**inputs),
            threshold=self.confidence,
            target_sizes=[(image.height, image.width)],
            text_labels=[list(names)],
        )
        boxes = (result["text_labels"], result["boxes"].tolist(), result["scores"].tolist())
        return distinct_objects(sorted_by_confidence(found_boxes(*boxes, image.size)), self.overlap)


def distinct_objects(found: Sequence[Found], overlap: float) -> list[Found]:
    """Return the objects without those that a more confident one of the same class overlaps by more than ``overlap``.

    Args:
        found: The objects, most confident first.
        overlap: Intersection over union, in (0, 1].
    """
    kept: list[Found] = []
    for thing in found:
        same = (other.detection for other in kept if other.detection.name == thing.detection.name)
        if all(iou(thing.detection.box, other.box) <= overlap for other in same):
            kept.append(thing)
    return kept
