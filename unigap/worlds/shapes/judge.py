"""The oracle of the embedded world as a judge, in the role of the paper's Qwen2.5-VL-72B."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from unigap.judges.base import CERTAIN, Judge
from unigap.models.base import UnifiedModel
from unigap.records import Candidate
from unigap.worlds.shapes.grammar import parse
from unigap.worlds.shapes.oracle import verdicts


class OracleJudge(Judge):
    """Ground-truth judge of the embedded world, for evaluation and as an upper bound for external judges."""

    @property
    def name(self) -> str:
        return "oracle"

    def logits(self, model: UnifiedModel, candidates: Sequence[Candidate], pixels_BCHW: torch.Tensor) -> torch.Tensor:
        truth_B = verdicts([parse(candidate.prompt.text) for candidate in candidates], pixels_BCHW)
        return torch.where(truth_B, CERTAIN, -CERTAIN)
