"""The gap as torchmetrics: each figure over all images, by category and by difficulty, exact across processes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from unigap.metrics import GenerationAccuracy, JudgePrecision, NonUnificationScore, WeakGenerationShare, YesRate
from unigap.metrics.grouped_metric import GroupedMetric
from unigap.metrics.intervals import Estimate
from unigap.metrics.sample_metric import SampleMetric
from unigap.prompt_sets.same_text import prompt_numbers
from unigap.records import Candidate, Prompt

ATTRIBUTES = ("category", "difficulty")


class GapMeter(nn.Module):
    """Accumulate the verdicts of both judges on generated images for a fixed prompt set.

    Args:
        prompts: The whole prompt set, the same on every process.
        candidates: N, images for each prompt.
        external: Whether there is an external judge; without one, the figures that need it are left out.
    """

    def __init__(self, prompts: Sequence[Prompt], candidates: int, external: bool = True) -> None:
        super().__init__()
        self.numbers = {prompt.id: i for i, prompt in enumerate(prompts)}
        self.clusters = dict(zip(self.numbers, prompt_numbers(prompts), strict=True))
        self.candidates = candidates
        self.names = {a: list(dict.fromkeys(getattr(prompt, a) for prompt in prompts)) for a in ATTRIBUTES}
        self.meters = nn.ModuleDict({a: nn.ModuleDict(_metrics(names, external)) for a, names in self.names.items()})

    def update(self, candidates: Sequence[Candidate], own_B: torch.Tensor, right_B: torch.Tensor | None) -> None:
        """Add the verdicts on a batch of images.

        Args:
            candidates: The candidates, B of them.
            own_B: Log-odds of yes of the model's own judge.
            right_B: External verdict, bool; None without an external judge.
        """
        device = own_B.device
        prompt_B = torch.tensor([self.clusters[c.prompt.id] for c in candidates], device=device)
        sample_B = torch.tensor(
            [self.numbers[c.prompt.id] * self.candidates + c.index for c in candidates], device=device
        )
        for attribute, metrics in self.meters.items():
            names = self.names[attribute]
            group_B = torch.tensor([names.index(getattr(c.prompt, attribute)) for c in candidates], device=device)
            for metric in metrics.values():  # type: ignore[operator]
                metric.update(
                    group_B=group_B,
                    logit_B=own_B.float(),
                    prompt_B=prompt_B,
                    sample_B=sample_B,
                    **({} if right_B is None else {"truth_B": right_B.to(device)}),
                )

    def own_verdicts(self) -> dict[str, torch.Tensor]:
        """Return the own judge's verdict on each image: ``sample``, ``prompt`` and ``logit``, all (S,), on the CPU.

        Collective: all processes must call it.
        """
        return self.meters[ATTRIBUTES[0]]["non_unification"].rows()  # type: ignore[index]

    def compute(self) -> dict[str, dict[str, Estimate]]:
        """Return each figure by name, then by group; the group ``"all"`` holds every image."""
        found: dict[str, dict[str, Estimate]] = {}
        for metrics in self.meters.values():
            for name, metric in metrics.items():  # type: ignore[operator]
                found.setdefault(name, {}).update(metric.compute())
        return found


def _metrics(groups: Sequence[str], external: bool) -> dict[str, nn.Module]:
    metrics: dict[str, SampleMetric] = {
        "generation": GenerationAccuracy(),
        "non_unification": NonUnificationScore(),
        "weak_generation": WeakGenerationShare(),
        "judge_precision": JudgePrecision(),
        "yes_rate": YesRate(),
    }
    return {
        name: GroupedMetric(metric, groups)
        for name, metric in metrics.items()
        if external or "truth" not in metric.columns
    }
