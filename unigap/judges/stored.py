"""Stored verdicts: a judge whose verdicts a pool holds already, such as those of a data set of preferences."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from unigap.judges.base import Judge
from unigap.models.base import UnifiedModel
from unigap.records import Candidate


class StoredJudge(Judge):
    """Verdicts that ``unigap pool import`` or ``unigap judge import`` stored in the pool under a name.

    A run trains on the pool as it is; candidates without a stored verdict give no row. A round that is sampled anew
    waits for verdicts of this name, as with ``HumanJudge``.

    Args:
        stored: The name under which the verdicts are stored, the ``--judge_name`` of the import.
    """

    deferred = True

    def __init__(self, stored: str = "human") -> None:
        if not stored:
            raise ValueError("stored is empty; give the name under which the verdicts are stored")
        self.stored = stored

    @property
    def name(self) -> str:
        """The name under which the verdicts are stored."""
        return self.stored

    def logits(self, model: UnifiedModel, candidates: Sequence[Candidate], pixels_BCHW: torch.Tensor) -> torch.Tensor:
        """Refuse: there are only stored verdicts.

        Raises:
            ValueError: Always.
        """
        raise ValueError(f"the verdicts of {self.stored!r} are stored, it judges no new images; take another judge")
