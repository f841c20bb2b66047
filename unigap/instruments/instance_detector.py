"""Detector with masks: Mask2Former and its relatives, the kind that GenEval publishes."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image

from unigap.evaluation.scoring.answers import Detection
from unigap.instruments.base import ClassDetector, Found, coco_name, sorted_by_confidence
from unigap.models.files.pretrained import Network

MASK2FORMER = "facebook/mask2former-swin-small-coco-instance"
"""Mask2Former, Swin-S, COCO instances: the architecture and the training set of GenEval's published detector."""


class InstanceDetector(ClassDetector):
    """Mask2Former or a relative, which gives each object its pixels.

    The box is that of the pixels. The confidence is the probability of the class times the mean probability of the
    pixels, as in the published detector. transformers needs scipy to build the network: ``pip install
    'unigap[bench]'``.

    Args:
        checkpoint: Folder or hub id of a network for instance segmentation in transformers' layout.
        confidence: Least confidence of a stored detection, in (0, 1).
        device: Device of the network; empty means the device of the model that is measured.
    """

    kind = "masks"

    def __init__(self, checkpoint: str = MASK2FORMER, confidence: float = 0.1, device: str = "") -> None:
        super().__init__(checkpoint, confidence, device)
        if importlib.util.find_spec("scipy") is None:
            raise ValueError("InstanceDetector needs scipy; pip install 'unigap[bench]', or take BoxDetector")

    def network(self) -> Network:
        from transformers import AutoImageProcessor, AutoModelForUniversalSegmentation

        network = AutoModelForUniversalSegmentation
        return Network("a network for instance segmentation", network, network.from_config, AutoImageProcessor)

    @torch.no_grad()
    def find(self, image: Image.Image, names: Sequence[str], device: torch.device | str) -> list[Found]:
        net, processor, outputs = self.seen(image, device)
        (result,) = processor.post_process_instance_segmentation(
            outputs, threshold=self.confidence, target_sizes=[(image.height, image.width)], return_binary_maps=True
        )
        masks_NHW = result["segmentation"].cpu().numpy() > 0
        found = []
        for segment, mask_HW in zip(result["segments_info"], masks_NHW, strict=False):  # one blank map if none is found
            label = coco_name(net.config.id2label[segment["label_id"]])
            found.append(Found(Detection(label, box_of(mask_HW), float(segment["score"])), mask_HW))
        return sorted_by_confidence(found)


def box_of(mask_HW: np.ndarray) -> tuple[float, float, float, float]:
    """Return the box around the pixels of a mask: left, top, right, bottom; empty if there is none.

    >>> box_of(np.array([[False, False, False], [False, True, True]]))
    (1.0, 1.0, 3.0, 2.0)
    """
    rows, columns = np.nonzero(mask_HW)
    if not len(rows):
        return (0.0, 0.0, 0.0, 0.0)
    return (float(columns.min()), float(rows.min()), float(columns.max() + 1), float(rows.max() + 1))
