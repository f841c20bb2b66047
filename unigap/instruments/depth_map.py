"""Depth of a detected object, for relations such as "in front of"."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL import Image

from unigap.evaluation.scoring.answers import Box
from unigap.instruments.base import Instrument
from unigap.models.files.pretrained import Network


class DepthMap(Instrument):
    """A depth estimator of transformers whose values are larger for nearer pixels, as DPT's and Depth Anything's are.

    Args:
        checkpoint: Folder or hub id of a depth estimator in transformers' layout; the default is the published kind.
        device: Device of the network; empty means the device of the model that is measured.
    """

    kind = "depth"

    def __init__(self, checkpoint: str = "Intel/dpt-hybrid-midas", device: str = "") -> None:
        super().__init__(checkpoint, device)

    def network(self) -> Network:
        from transformers import AutoImageProcessor, AutoModelForDepthEstimation

        network = AutoModelForDepthEstimation
        return Network("a depth estimator", network, network.from_config, AutoImageProcessor)

    @torch.no_grad()
    def depths(self, image: Image.Image, boxes: Sequence[Box], device: torch.device | str) -> list[float]:
        """Return the mean of the depth map over each box, larger for nearer.

        Args:
            image: The image.
            boxes: Boxes inside it, in pixels.
            device: Device of the model that is measured.
        """
        if not boxes:
            return []
        net, processor = self.loaded(device)
        outputs = net(**processor(images=[image], return_tensors="pt").to(net.device))
        (result,) = processor.post_process_depth_estimation(outputs, target_sizes=[(image.height, image.width)])
        depth_HW = result["predicted_depth"]
        return [_mean(depth_HW, box) for box in boxes]


def _mean(depth_HW: torch.Tensor, box: Box) -> float:
    left, top, right, bottom = map(int, box)
    # the box of a thin object may hold no whole pixel
    return depth_HW[top : max(bottom, top + 1), left : max(right, left + 1)].mean().item()
