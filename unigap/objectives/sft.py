"""SFT: maximum likelihood of accepted images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from unigap.loop.sampling import stack_drawings
from unigap.loop.selection import accepted_rows, balanced, threshold_logit
from unigap.models.base import UnifiedModel
from unigap.objectives.base import Objective, RowBatch, StepResult, step_noise, with_dropped
from unigap.objectives.losses import sft_loss
from unigap.records import Candidate

# Shape legend: B rows, M image tokens.


class SFT(Objective):
    """Maximum likelihood of the accepted images (Algorithm 1, SFT).

    Args:
        threshold: Smallest probability of yes that accepts an image, in (0, 1).
        keep: Most images of a prompt, by log-odds.
        balance: Repeat the images of prompts that have fewer than ``keep``, so that all prompts with an accepted image
            weigh the same and easy prompts do not dominate.
        prompt_dropout: Share of rows that learn under the null prompt, in [0, 1). Classifier-free guidance samples with
            a model of both: if only prompts train, the null prompt's predictions drift. Flow models train with 0.1; 0
            trains prompts only.
    """

    def __init__(
        self, threshold: float = 0.5, keep: int = 8, balance: bool = False, prompt_dropout: float = 0.0
    ) -> None:
        threshold_logit(threshold)
        if keep < 1:
            raise ValueError(f"keep must be >= 1, got {keep}")
        if not 0 <= prompt_dropout < 1:
            raise ValueError(f"prompt_dropout must be in [0, 1), got {prompt_dropout}; flow models train with 0.1")
        self.threshold, self.keep, self.balance, self.prompt_dropout = threshold, keep, balance, prompt_dropout

    @property
    def needs_reference(self) -> bool:
        return False

    def rows(self, candidates: Iterable[Candidate], logits: Mapping[str, float]) -> Sequence[Candidate]:
        rows = accepted_rows(candidates, logits, self.threshold, self.keep)
        return balanced(rows, self.keep) if self.balance else rows

    def members(self, row: Candidate) -> tuple[Candidate, ...]:
        return (row,)

    def collate(self, rows: Sequence[Candidate], references: Mapping[str, float]) -> RowBatch:
        return RowBatch(tuple(row.id for row in rows), tuple(row.prompt.text for row in rows), stack_drawings(rows))

    def step(self, model: UnifiedModel, batch: RowBatch) -> StepResult:
        noise_B = step_noise(model, len(batch.drawings_B))
        prompt = with_dropped(model.encode_prompt(batch.texts), self.prompt_dropout)
        logp_BM = model.image_logps(prompt, batch.drawings_B, noise_B)
        return StepResult(sft_loss(logp_BM), {})
