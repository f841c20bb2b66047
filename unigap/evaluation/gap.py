"""Measure the gap: sample held-out prompts and compare the model's own judge with an external judge."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from unigap.console import tasks
from unigap.evaluation.probe_set import ProbeSet
from unigap.judges import Judge, SelfJudge
from unigap.loop.plan import RoundPlan
from unigap.loop.sampling import SampledBatch, sample_candidates
from unigap.metrics import intervals, scores
from unigap.metrics.intervals import Estimate
from unigap.metrics.win_rate import WinRateResult, win_rate
from unigap.models.base import UnifiedModel
from unigap.records import Prompt

# Shape legend: S generated images, E images of a probe set, P prompts.

EVAL_ROUND = -1
"""Round number in the seeds of evaluation samples; rounds of a pool count from 0."""

Counts = tuple[torch.Tensor, torch.Tensor]
"""Numerator and denominator of a share: which samples are hits, and which are counted, bool (S,) each."""


@dataclass(frozen=True)
class Verdicts:
    """Generated images for held-out prompts with the verdicts of both judges.

    Attributes:
        prompts: The prompt set.
        sampled: The images and their candidates, N for each prompt in order.
        prompt_S: Index of each image's prompt, int64.
        own_S: Log-odds of yes of the model's own judge.
        right_S: External verdict, bool; None without an external judge.
    """

    prompts: Sequence[Prompt]
    sampled: SampledBatch
    prompt_S: torch.Tensor
    own_S: torch.Tensor
    right_S: torch.Tensor | None

    @property
    def truth_S(self) -> torch.Tensor:
        """External verdict, bool; only for measurements made with an external judge."""
        assert self.right_S is not None, "measured without an external judge"
        return self.right_S

    def where(self, keep_S: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor]:
        """Return own log-odds, external verdicts and prompt indices of the images in ``keep_S``, bool (S,)."""
        right_S = None if self.right_S is None else self.right_S[keep_S]
        return self.own_S[keep_S], right_S, self.prompt_S[keep_S]

    @property
    def category_S(self) -> torch.Tensor | None:
        """Index of each image's category, int64 (S,); None if all prompts share one category."""
        names = [prompt.category for prompt in self.prompts]
        numbers_P = torch.tensor([sorted(set(names)).index(name) for name in names])
        return numbers_P[self.prompt_S] if len(set(names)) > 1 else None

    def groups(self, attribute: str) -> dict[str, torch.Tensor]:
        """Return a mask of the images in each category or difficulty, bool (S,), by name."""
        names = [getattr(self.prompts[i], attribute) for i in self.prompt_S.tolist()]
        return {name: torch.tensor([n == name for n in names]) for name in dict.fromkeys(names)}


def measure(
    model: UnifiedModel,
    prompts: Sequence[Prompt],
    plan: RoundPlan,
    judge: Judge,
    external: Judge | None,
    progress: Callable[[int], None] = lambda images: None,
    title: str = "gap",
) -> Verdicts:
    """Sample held-out prompts with fixed seeds and collect the verdicts of the own judge and the external judge.

    Args:
        model: The model.
        prompts: Held-out prompts.
        plan: Candidates for each prompt, sampling recipe, seed and batch size.
        judge: The model's own judge.
        external: The external judge; None leaves ``right_S`` out.
        progress: Called with the number of images after each batch.
        title: Name of the measurement, for its progress.
    """
    batches, own, right = [], [], []
    how = (plan.candidates, EVAL_ROUND, plan.sampling_seed, plan.sampling, plan.images_per_batch)
    with tasks.task("measuring", title, len(prompts) * plan.candidates, "image", tasks.IMAGE_PARTS):
        for sampled in sample_candidates(model, prompts, *how):
            own_B, right_B = both_verdicts(model, judge, external, sampled)
            batches.append(sampled)
            own.append(own_B.float().cpu())
            right.append(right_B)
            progress(len(sampled.candidates))
    candidates = [candidate for sampled in batches for candidate in sampled.candidates]
    pixels = torch.cat([sampled.pixels_BCHW.cpu() for sampled in batches])
    prompt_S = torch.arange(len(prompts)).repeat_interleave(plan.candidates)
    right_S = None if external is None else torch.cat([right_B.cpu() for right_B in right if right_B is not None])
    return Verdicts(prompts, SampledBatch(candidates, pixels), prompt_S, torch.cat(own), right_S)


def both_verdicts(
    model: UnifiedModel, judge: Judge, external: Judge | None, sampled: SampledBatch
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return the own judge's log-odds of yes, and whether the external judge accepts, bool; both (B,).

    Without an external judge, the second is None.
    """
    asked = (model, sampled.candidates, sampled.pixels_BCHW)
    images = len(sampled.candidates) / (1 if external is None else 2)
    with tasks.part("judging", images):
        own_B = judge.logits(*asked)
    if external is None:
        return own_B, None
    with tasks.part("judging", images):
        return own_B, external.logits(*asked) > 0


def rejudge(model: UnifiedModel, verdicts: Verdicts, judge: Judge) -> torch.Tensor:
    """Return log-odds of yes that ``model`` in its present state gives to images sampled earlier, float32 (S,)."""
    candidates = verdicts.sampled.candidates
    again = tasks.task("measuring", "images from before", len(candidates), "image", ["judging"])
    with again, tasks.part("judging", len(candidates)):
        return judge.logits(model, candidates, verdicts.sampled.pixels_BCHW).float().cpu()


def gap_scores(verdicts: Verdicts, threshold: float = 0.5) -> dict[str, Estimate]:
    """Return generation accuracy, non-unification score, weak-generation share and precision of yes.

    Without an external judge, the non-unification score alone.
    """
    return _gap_scores(verdicts.own_S, verdicts.right_S, verdicts.prompt_S, threshold)


def gap_by(verdicts: Verdicts, attribute: str, threshold: float = 0.5) -> dict[str, dict[str, Estimate]]:
    """Return ``gap_scores`` by group; ``attribute`` is ``"category"`` or ``"difficulty"``."""
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
    """Return a judge's accuracy, TPR, TNR, yes-rate and AUROC on images whose truth is known.

    Args:
        logit_S: Log-odds of yes.
        right_S: Whether yes is right, bool; None gives the yes-rate alone.
        prompt_S: Bootstrap cluster of each image.
        threshold: Probability of yes from which an image is accepted.
        category_S: Category of each image; adds the AUROC within categories, ``judge_auroc_within``.
    """
    counted = judging_counts(scores.says_yes(logit_S, threshold), right_S)
    found = {name: scores.share(*counts, prompt_S) for name, counts in counted.items()}
    if right_S is None:
        return found
    found["judge_auroc"] = scores.auroc(logit_S, right_S, prompt_S)
    if category_S is not None:
        found["judge_auroc_within"] = scores.auroc(logit_S, right_S, prompt_S, stratum_S=category_S)
    return found


def probe_logits(model: UnifiedModel, probes: ProbeSet, judge: SelfJudge, batch_size: int = 256) -> torch.Tensor:
    """Return the judge's log-odds of yes for each claim of a probe set, float32 (E,) on the CPU."""
    logits = []
    with tasks.task("measuring", "probe set", len(probes.truth_B), "image", ["judging"]):
        for batch in probes.batches(batch_size):
            with tasks.part("judging", len(batch.claims)):
                logits.append(judge.ask(model, batch.claims, batch.pixels_BCHW).float().cpu())
    return torch.cat(logits)


def probe_scores(probes: ProbeSet, logit_E: torch.Tensor, threshold: float = 0.5) -> dict[str, Estimate]:
    """Return understanding on a probe set of rendered images: accuracy, TPR, TNR, yes-rate and AUROC."""
    names = {"judge_accuracy": "understanding_renders", "yes_rate": "renders_yes_rate"}
    scored = judge_scores(logit_E, probes.truth_B, probes.cluster_B, threshold)
    return {names.get(name, name.replace("judge", "renders")): value for name, value in scored.items()}


def rejudged_scores(before: Verdicts, after_on_before_S: torch.Tensor, threshold: float = 0.5) -> dict[str, Estimate]:
    """Return how often the trained judge flips the base judge's verdicts, by FP, TP, TN and FN.

    Without an external judge there is no truth, and the result is empty.

    Args:
        before: The base model's images with the base judge's verdicts.
        after_on_before_S: Log-odds of yes that the trained judge gives to the same images, (S,).
        threshold: Probability of yes from which either judge accepts.
    """
    yes_S, yes_after_S = (scores.says_yes(logit_S, threshold) for logit_S in (before.own_S, after_on_before_S))
    right_S = before.right_S
    if right_S is None:
        return {}
    flipped = {
        "false_positives_rejected": (~yes_after_S, yes_S & ~right_S),
        "true_positives_rejected": (~yes_after_S, yes_S & right_S),
        "true_negatives_accepted": (yes_after_S, ~yes_S & ~right_S),
        "false_negatives_accepted": (yes_after_S, ~yes_S & right_S),
    }
    return {name: scores.share(hit_S, counted_S, before.prompt_S) for name, (hit_S, counted_S) in flipped.items()}


def redrawn_scores(before: Verdicts, after: Verdicts) -> dict[str, Estimate]:
    """Return the share of wrong images that became right after training, and of right ones that became wrong.

    Without an external judge the result is empty.

    Args:
        before: Verdicts on images of the base model.
        after: Verdicts on images of the trained model for the same prompts and seeds, in the same order.
    """
    was_S, is_S, prompt_S = before.right_S, after.right_S, before.prompt_S
    if was_S is None or is_S is None:
        return {}
    changed = {"wrong_to_right": (is_S, ~was_S), "right_to_wrong": (~is_S, was_S)}
    return {name: scores.share(hit_S, counted_S, prompt_S) for name, (hit_S, counted_S) in changed.items()}


@dataclass(frozen=True)
class Change:
    """Change from before to after training, on the same prompts and seeds.

    Attributes:
        delta: Paired after-minus-before differences, by the names of ``gap_scores`` and ``judge_scores``; those of the
            judge are on the base model's drawings.
        win: Win rate of the judges on the base model's images; None without an external judge.
    """

    delta: dict[str, Estimate]
    win: WinRateResult | None


def compare(before: Verdicts, after: Verdicts, after_on_before_S: torch.Tensor, threshold: float = 0.5) -> Change:
    """Return paired differences, and the win rate of the trained judge over the base judge on the base model's images.

    Args:
        before: The base model's images with the base judge's verdicts.
        after: The trained model's images with the trained judge's verdicts, for the same prompts and seeds.
        after_on_before_S: Log-odds of yes that the trained judge gives to the base model's images, (S,).
        threshold: Probability of yes from which either judge accepts.
    """
    right_S, prompt_S = before.right_S, before.prompt_S
    yes_S, yes_after_S, yes_rejudged_S = (
        scores.says_yes(logit_S, threshold) for logit_S in (before.own_S, after.own_S, after_on_before_S)
    )
    drawn, redrawn = drawing_counts(yes_S, right_S), drawing_counts(yes_after_S, after.right_S)
    judged, rejudged = judging_counts(yes_S, right_S), judging_counts(yes_rejudged_S, right_S)
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
    """Return the paired cluster bootstrap of the difference of two shares, after minus before."""
    arms = ((before, prompt_before_S), (after, prompt_after_S))
    first, second = (((hit & counted).double(), counted.double(), prompt_S) for (hit, counted), prompt_S in arms)
    return intervals.paired_difference(first, second)


def drawing_counts(yes_S: torch.Tensor, right_S: torch.Tensor | None) -> dict[str, Counts]:
    """Return numerator and denominator of each figure of generation, given both verdicts, bool (S,)."""
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
    """Return numerator and denominator of each figure of a judge, given its verdicts and the truth, bool (S,)."""
    all_S = torch.ones_like(yes_S)
    if right_S is None:
        return {"yes_rate": (yes_S, all_S)}
    return {
        "judge_accuracy": (yes_S == right_S, all_S),
        "judge_tpr": (yes_S, right_S),
        "judge_tnr": (~yes_S, ~right_S),
        "yes_rate": (yes_S, all_S),
    }
