"""Detector of boxes: DETR, RT-DETR, YOLOS and other object detectors of transformers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL import Image

from unigap.evaluation.scoring.answers import Box, Detection
from unigap.evaluation.scoring.boxes import clipped
from unigap.instruments.base import ClassDetector, Found, coco_name, sorted_by_confidence
from unigap.models.files.pretrained import Network


class BoxDetector(ClassDetector):
    """An object detector with classes of its own; it gives boxes and no masks.

    Without masks, colours are read from the whole box, background included.

    Args:
        checkpoint: Folder or hub id of an object detector in transformers' layout, e.g. ``PekingU/rtdetr_r50vd``.
        confidence: Least confidence of a stored detection, in (0, 1).
        device: Device of the network; empty means the device of the model that is measured.
    """

    kind = "boxes"

    def __init__(self, checkpoint: str, confidence: float = 0.1, device: str = "") -> None:
        super().__init__(checkpoint, confidence, device)

    def network(self) -> Network:
        from transformers import AutoImageProcessor, AutoModelForObjectDetection

        network = AutoModelForObjectDetection
        return Network("an object detector", network, network.from_config, AutoImageProcessor)

    @torch.no_grad()
    def find(self, image: Image.Image, names: Sequence[str], device: torch.device | str) -> list[Found]:
        net, processor, outputs = self.seen(image, device)
        (result,) = processor.post_process_object_detection(
            outputs, threshold=self.confidence, target_sizes=[(image.height, image.width)]
        )
        labels = [coco_name(net.config.id2label[label]) for label in result["labels"].tolist()]
        return sorted_by_confidence(
            found_boxes(labels, result["boxes"].tolist(), result["scores"].tolist(), image.size)
        )


def found_boxes(
    labels: Sequence[str], boxes: Sequence[Box], scores: Sequence[float], size: tuple[int, int]
) -> list[Found]:
    """Return detections without masks, their boxes clipped to the image of ``size`` (width, height)."""
    rows = zip(labels, boxes, scores, strict=True)
    return [Found(Detection(label, clipped(box, size), float(score))) for label, box, score in rows]
