"""The oracle of the embedded world as a judge: the role Qwen2.5-VL-72B plays in the paper."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from unigap.judges.base import CERTAIN, Judge
from unigap.models.base import UnifiedModel
from unigap.records import Candidate
from unigap.worlds.shapes.grammar import parse
from unigap.worlds.shapes.oracle import verdicts


class OracleJudge(Judge):
    """Knows the truth of every drawing of the embedded world; for evaluation and the external-judge ceiling only."""

    @property
    def name(self) -> str:
        return "oracle"

    def logits(self, model: UnifiedModel, candidates: Sequence[Candidate], pixels_BCHW: torch.Tensor) -> torch.Tensor:
        truth_B = verdicts([parse(candidate.prompt.text) for candidate in candidates], pixels_BCHW)
        return torch.where(truth_B, CERTAIN, -CERTAIN)
