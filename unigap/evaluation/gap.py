"""Measuring the gap: draw for held-out prompts, ask the model's own judge and an external one, compare."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from unigap.evaluation.probe_set import ProbeSet
from unigap.judges import Judge, SelfJudge
from unigap.loop.plan import RoundPlan
from unigap.loop.sampling import Drawings, draw_candidates
from unigap.metrics import intervals, scores
from unigap.metrics.intervals import Estimate
from unigap.metrics.win_rate import WinRateResult, win_rate
from unigap.models.base import UnifiedModel
from unigap.records import Prompt

# Shape legend: S drawings, E exam pictures.

EVAL_ROUND = -1
"""The round number in evaluation seeds: never one the pool draws."""


Counts = tuple[torch.Tensor, torch.Tensor]
"""Which samples are hits, and which count at all, bool (S,)."""


@dataclass(frozen=True)
class Verdicts:
    """Drawings for held-out prompts and what was said of them.

    Attributes:
        prompts: The prompt set.
        drawings: The drawings, N for each prompt in order.
        prompt_S: Number of each drawing's prompt, int64.
        own_S: Log-odds of yes of the model's own judge.
        right_S: External verdict, bool; None where nobody was asked.
    """

    prompts: Sequence[Prompt]
    drawings: Drawings
    prompt_S: torch.Tensor
    own_S: torch.Tensor
    right_S: torch.Tensor | None

    @property
    def truth_S(self) -> torch.Tensor:
        """External verdict, bool, of a measurement that is known to have had an external judge."""
        assert self.right_S is not None, "no external judge was asked"
        return self.right_S

    def where(self, keep_S: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor]:
        """Own log-odds, external verdicts and prompt numbers of some of the drawings."""
        right_S = None if self.right_S is None else self.right_S[keep_S]
        return self.own_S[keep_S], right_S, self.prompt_S[keep_S]

    @property
    def category_S(self) -> torch.Tensor | None:
        """Number of each drawing's category; None where the prompts are of one category."""
        names = [prompt.category for prompt in self.prompts]
        numbers_P = torch.tensor([sorted(set(names)).index(name) for name in names])
        return numbers_P[self.prompt_S] if len(set(names)) > 1 else None

    def groups(self, attribute: str) -> dict[str, torch.Tensor]:
        """Which drawings belong to each category or difficulty, bool (S,) by name."""
        names = [getattr(self.prompts[i], attribute) for i in self.prompt_S.tolist()]
        return {name: torch.tensor([n == name for n in names]) for name in dict.fromkeys(names)}


def measure(
    model: UnifiedModel,
    prompts: Sequence[Prompt],
    plan: RoundPlan,
    judge: Judge,
    external: Judge | None,
    progress: Callable[[int], None] = lambda images: None,
) -> Verdicts:
    """Draws for held-out prompts with fixed seeds and collects the verdicts of the own judge and the external one."""
    batches, own, right = [], [], []
    for drawings in draw_candidates(
        model, prompts, plan.candidates, EVAL_ROUND, plan.sampling_seed, plan.sampling, plan.images_per_batch
    ):
        batches.append(drawings)
        own.append(judge.logits(model, drawings.candidates, drawings.pixels_BCHW).float().cpu())
        right.append(external_verdicts(external, model, drawings))
        progress(len(drawings.candidates))
    candidates = [candidate for drawings in batches for candidate in drawings.candidates]
    pixels = torch.cat([drawings.pixels_BCHW.cpu() for drawings in batches])
    prompt_S = torch.arange(len(prompts)).repeat_interleave(plan.candidates)
    right_S = None if external is None else torch.cat([right_B.cpu() for right_B in right if right_B is not None])
    return Verdicts(prompts, Drawings(candidates, pixels), prompt_S, torch.cat(own), right_S)


def external_verdicts(external: Judge | None, model: UnifiedModel, drawings: Drawings) -> torch.Tensor | None:
    """Whether the external judge finds each drawing right, bool (B,); None where there is no such judge."""
    if external is None:
        return None
    return external.logits(model, drawings.candidates, drawings.pixels_BCHW) > 0


def rejudge(model: UnifiedModel, verdicts: Verdicts, judge: Judge) -> torch.Tensor:
    """Log-odds of yes that ``model`` as it is now gives to drawings made before, (S,)."""
    return judge.logits(model, verdicts.drawings.candidates, verdicts.drawings.pixels_BCHW).float().cpu()


def gap_scores(verdicts: Verdicts, threshold: float = 0.5) -> dict[str, Estimate]:
    """Generation, non-unification, weak-generation share and precision of yes on the drawings.

    Where no external judge was asked, non-unification alone.
    """
    return _gap_scores(verdicts.own_S, verdicts.right_S, verdicts.prompt_S, threshold)


def gap_by(verdicts: Verdicts, attribute: str, threshold: float = 0.5) -> dict[str, dict[str, Estimate]]:
    """``gap_scores`` for each category (``"category"``) or tier (``"difficulty"``)."""
    groups = verdicts.groups(attribute)
    return {name: _gap_scores(*verdicts.where(keep_S), threshold) for name, keep_S in groups.items()}


def _gap_scores(
    own_S: torch.Tensor, right_S: torch.Tensor | None, prompt_S: torch.Tensor, threshold: float
) -> dict[str, Estimate]:
    counted = drawing_counts(scores.says_yes(own_S, threshold), right_S)
    return {name: scores.share(*counts, prompt_S) for name, counts in counted.items()}


def judge_scores(
    logit_S: torch.Tensor,
    right_S: torch.Tensor | None,
    prompt_S: torch.Tensor,
    threshold: float = 0.5,
    category_S: torch.Tensor | None = None,
) -> dict[str, Estimate]:
    """How good a judge is on images whose truth is known; where it is not, its yes-rate alone.

    With categories, also its AUROC within them.
    """
    counted = judging_counts(scores.says_yes(logit_S, threshold), right_S)
    found = {name: scores.share(*counts, prompt_S) for name, counts in counted.items()}
    if right_S is None:
        return found
    found["judge_auroc"] = scores.auroc(logit_S, right_S, prompt_S)
    if category_S is not None:
        found["judge_auroc_within"] = scores.auroc(logit_S, right_S, prompt_S, stratum_S=category_S)
    return found


def sit_exam(
    model: UnifiedModel,
    exam: ProbeSet,
    judge: SelfJudge,
    batch_size: int = 256,
    progress: Callable[[int], object] = lambda claims: None,
) -> torch.Tensor:
    """Log-odds of yes for each claim of an exam, (E,)."""
    parts = []
    for part in exam.batches(batch_size):
        parts.append(judge.ask(model, part.claims, part.pixels_BCHW).float().cpu())
        progress(len(part.claims))
    return torch.cat(parts)


def exam_scores(exam: ProbeSet, logit_E: torch.Tensor, threshold: float = 0.5) -> dict[str, Estimate]:
    """Understanding on renders: accuracy, TPR, TNR and AUROC."""
    names = {"judge_accuracy": "understanding_renders", "yes_rate": "renders_yes_rate"}
    scored = judge_scores(logit_E, exam.truth_B, exam.cluster_B, threshold)
    return {names.get(name, name.replace("judge", "renders")): value for name, value in scored.items()}


def rejudged_scores(before: Verdicts, after_on_before_S: torch.Tensor, threshold: float = 0.5) -> dict[str, Estimate]:
    """Of the verdicts of the judge before, true and false, how many the judge after turned round.

    Args:
        before: The drawings made before, with the verdicts of that time.
        after_on_before_S: Log-odds of yes that the judge after gives to the same drawings, (S,).
        threshold: Probability from which on both say yes.
    """
    yes_S, still_S = (scores.says_yes(logit_S, threshold) for logit_S in (before.own_S, after_on_before_S))
    right_S = before.right_S
    if right_S is None:
        return {}
    turned = {
        "false_positives_rejected": (~still_S, yes_S & ~right_S),
        "true_positives_rejected": (~still_S, yes_S & right_S),
        "true_negatives_accepted": (still_S, ~yes_S & ~right_S),
        "false_negatives_accepted": (still_S, ~yes_S & right_S),
    }
    return {name: scores.share(hit_S, counted_S, before.prompt_S) for name, (hit_S, counted_S) in turned.items()}


def redrawn_scores(before: Verdicts, after: Verdicts) -> dict[str, Estimate]:
    """Of the drawings made before, wrong and right, how many came out otherwise when drawn again after.

    Args:
        before: The drawings made before.
        after: Those made after for the same prompts and seeds, in the same order.
    """
    was_S, is_S, prompt_S = before.right_S, after.right_S, before.prompt_S
    if was_S is None or is_S is None:
        return {}
    turned = {"wrong_to_right": (is_S, ~was_S), "right_to_wrong": (~is_S, was_S)}
    return {name: scores.share(hit_S, counted_S, prompt_S) for name, (hit_S, counted_S) in turned.items()}


@dataclass(frozen=True)
class Change:
    """What self-improvement changed, on the same prompts and seeds.

    Attributes:
        delta: Paired after-minus-before intervals by the names of ``gap_scores`` and ``judge_scores``; those of the
            judge are on the drawings made before.
        win: Both judges on the drawings made before; None where no external judge was asked.
    """

    delta: dict[str, Estimate]
    win: WinRateResult | None


def compare(before: Verdicts, after: Verdicts, after_on_before_S: torch.Tensor, threshold: float = 0.5) -> Change:
    """Paired differences, and the judge before against the judge after on the drawings made before."""
    right_S, prompt_S = before.right_S, before.prompt_S
    yes_S, yes_after_S, still_S = (
        scores.says_yes(logit_S, threshold) for logit_S in (before.own_S, after.own_S, after_on_before_S)
    )
    drawn, redrawn = drawing_counts(yes_S, right_S), drawing_counts(yes_after_S, after.right_S)
    judged, rejudged = judging_counts(yes_S, right_S), judging_counts(still_S, right_S)
    delta = {name: paired_share(drawn[name], prompt_S, redrawn[name], after.prompt_S) for name in drawn}
    delta |= {name: paired_share(judged[name], prompt_S, rejudged[name], prompt_S) for name in judged}
    if right_S is None:
        return Change(delta, None)
    win = win_rate(before.own_S, after_on_before_S, right_S, prompt_S, threshold)
    delta["judge_auroc"] = win.delta_auroc
    if before.category_S is not None:
        first, last = ((logit_S, right_S, prompt_S) for logit_S in (before.own_S, after_on_before_S))
        strata = before.category_S, before.category_S
        delta["judge_auroc_within"] = intervals.paired_auroc_difference(first, last, strata=strata)
    return Change(delta, win)


def paired_share(
    before: Counts, prompt_before_S: torch.Tensor, after: Counts, prompt_after_S: torch.Tensor
) -> Estimate:
    """Share of hits among what counts, after minus before, each resample drawing the same prompts for both."""
    arms = ((before, prompt_before_S), (after, prompt_after_S))
    first, second = (((hit & counted).double(), counted.double(), prompt_S) for (hit, counted), prompt_S in arms)
    return intervals.paired_difference(first, second)


def drawing_counts(yes_S: torch.Tensor, right_S: torch.Tensor | None) -> dict[str, Counts]:
    """Hits and what counts for each figure of a model's drawings, given both verdicts, bool (S,)."""
    all_S = torch.ones_like(yes_S)
    if right_S is None:
        return {"non_unification": (~yes_S, all_S)}
    return {
        "generation": (right_S, all_S),
        "non_unification": (~yes_S, all_S),
        "weak_generation": (~right_S, ~yes_S),
        "judge_precision": (right_S, yes_S),
    }


def judging_counts(yes_S: torch.Tensor, right_S: torch.Tensor | None) -> dict[str, Counts]:
    """Hits and what counts for each figure of a judge, given its verdicts and the truth, bool (S,)."""
    all_S = torch.ones_like(yes_S)
    if right_S is None:
        return {"yes_rate": (yes_S, all_S)}
    return {
        "judge_accuracy": (yes_S == right_S, all_S),
        "judge_tpr": (yes_S, right_S),
        "judge_tnr": (~yes_S, ~right_S),
        "yes_rate": (yes_S, all_S),
    }
