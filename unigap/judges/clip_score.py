"""CLIPScore, or the score of another model in CLIP's layout such as PickScore, as a judge."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from unigap.files.images import to_image
from unigap.judges.base import Judge
from unigap.models.base import UnifiedModel
from unigap.models.files.location import resolve
from unigap.models.files.pretrained import clip_from_folder
from unigap.records import Candidate


class ClipScoreJudge(Judge):
    """CLIPScore by torchmetrics, minus a threshold.

    CLIPScore is 100 times the cosine of image and prompt, at least 0. CLIP compares captions by a softmax over 100
    times the cosine. So the result is the log-odds, to CLIP, of the prompt against a caption that scores ``threshold``.
    That is not the same as log-odds that the image shows the prompt: CLIP is weak at counts, positions and attributes.
    A prompt that is longer than CLIP's context is cut off, with a warning of torchmetrics.

    Args:
        checkpoint: Folder or hub id of a CLIP model in transformers' layout, stored as safetensors, e.g.
            ``openai/clip-vit-large-patch14`` or ``yuvalkirstain/PickScore_v1``.
        threshold: Least score that accepts an image. It depends on the model; take it from images you have judged.
        device: Device of the judge; empty means the device of the trained model.
    """

    def __init__(self, checkpoint: str, threshold: float, device: str = "") -> None:
        if not math.isfinite(threshold):
            raise ValueError(f"threshold must be a number, got {threshold}")
        # fail before anything is sampled
        resolve(checkpoint)
        self.checkpoint, self.threshold, self.device = checkpoint, threshold, device
        self._metric: Any = None

    @property
    def name(self) -> str:
        return f"clip-{Path(self.checkpoint).resolve().name}"

    @torch.no_grad()
    def logits(self, model: UnifiedModel, candidates: Sequence[Candidate], pixels_BCHW: torch.Tensor) -> torch.Tensor:
        if not candidates:
            return pixels_BCHW.new_zeros(0)
        if self._metric is None:
            from torchmetrics.multimodal import CLIPScore

            self._metric = CLIPScore(model_name_or_path=lambda: _parts(self.checkpoint))
        device = self.device or str(next(model.parameters()).device)
        self._metric.to(device)
        # one image per call: the metric returns the mean of a batch
        scores = [
            self._metric(_levels(pixels_CHW).to(device), candidate.prompt.text).item()
            for candidate, pixels_CHW in zip(candidates, pixels_BCHW, strict=True)
        ]
        self._metric.reset()
        return torch.tensor(scores, dtype=torch.float32) - self.threshold


def _levels(pixels_CHW: torch.Tensor) -> torch.Tensor:
    """Return the 8-bit levels of an image, uint8 (3, H, W), as every judge of another model sees them."""
    return torch.from_numpy(np.array(to_image(pixels_CHW))).permute(2, 0, 1)


def _parts(checkpoint: str) -> tuple[Any, Any]:
    net, processor = clip_from_folder(checkpoint)
    return _Features(net), processor


class _Features(nn.Module):
    """CLIP whose features are tensors, as torchmetrics 1.9 expects; transformers 5 returns them in an object."""

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.net, self.config = net, net.config

    def get_image_features(self, *inputs: torch.Tensor) -> torch.Tensor:
        return self.net.get_image_features(*inputs).pooler_output

    def get_text_features(self, *inputs: torch.Tensor) -> torch.Tensor:
        return self.net.get_text_features(*inputs).pooler_output
