"""Probe images of the learning dynamics, and their two log-likelihoods in the form that ``theory`` takes."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from theory import Probes, Source
from unigap.loop.sampling import stack_drawings
from unigap.models.base import PromptBatch, UnifiedModel
from unigap.records import Candidate

# Shape legend: B images, P probes, L prompt tokens, M image tokens, C H W image channels and sides.

GROUPS = ("true accept", "false accept", "true reject", "false reject")
"""Verdict of the selecting judge, and whether the external judge agrees."""
RIGHT = frozenset((GROUPS[0], GROUPS[3]))
"""The groups of images that match their prompt."""


@dataclass(frozen=True)
class WatchedImages:
    """A fixed set of the model's own images.

    Attributes:
        candidates: The images, P of them, group by group.
        groups: The group of each, one of ``GROUPS``.
    """

    candidates: tuple[Candidate, ...]
    groups: tuple[str, ...]

    def members(self, group: str) -> list[int]:
        """Return the indices of the probes of a group, in rising order."""
        return [i for i, name in enumerate(self.groups) if name == group]

    @property
    def right_P(self) -> Tensor:
        """Whether each probe matches its prompt, bool, shape (P,)."""
        return torch.tensor([group in RIGHT for group in self.groups])


def pick_probes(
    candidates: Sequence[Candidate],
    accepted: Mapping[str, bool],
    right: Mapping[str, bool],
    per_group: int,
    seed: int,
) -> WatchedImages:
    """Sample up to ``per_group`` probes of each group.

    Args:
        candidates: Judged candidates.
        accepted: Verdict of the selecting judge, by candidate id.
        right: Verdict of the external judge, by candidate id.
        per_group: Maximum number of probes in a group.
        seed: Seed of the sampling; equal pools and seeds give equal probes.

    Raises:
        ValueError: Fewer than three probes are found, too few for a test.
    """
    found: dict[str, list[Candidate]] = {group: [] for group in GROUPS}
    for candidate in candidates:
        agreed = accepted[candidate.id] == right[candidate.id]
        found[f"{'true' if agreed else 'false'} {'accept' if accepted[candidate.id] else 'reject'}"].append(candidate)
    rng = random.Random(seed)
    picked = {group: rng.sample(members, min(per_group, len(members))) for group, members in found.items()}
    probes = [(candidate, group) for group in GROUPS for candidate in picked[group]]
    if len(probes) < 3:
        raise ValueError(f"learning dynamics need 3 probes, the pool gives {len(probes)}; raise per_group or draw more")
    return WatchedImages(tuple(candidate for candidate, _ in probes), tuple(group for _, group in probes))


def image_logp(model: UnifiedModel, batch: Mapping[str, Tensor]) -> Tensor:
    """Return the log-likelihood of each image given its prompt, log pi(x | y).

    Args:
        model: A model. Without an exact likelihood its estimate is used, which is a function of the weights as long as
            equal prompts are measured with equal noise.
        batch: ``ids_BL`` and ``mask_BL`` of the prompts, ``drawings_B`` of the images.

    Returns:
        Shape (B,), in nats.
    """
    ids_BL, mask_BL = batch["ids_BL"], batch["mask_BL"]
    prompt = PromptBatch(ids_BL, mask_BL, ids_BL, mask_BL)
    return model.image_logps(prompt, batch["drawings_B"]).sum(-1)


@dataclass(frozen=True)
class YesLogOdds:
    """Log-odds of "yes, this image shows this text", averaged over phrasings: the self-judge, differentiable.

    Attributes:
        texts: The texts to ask about.
        questions: Phrasings, each with ``{prompt}``.
    """

    texts: tuple[str, ...]
    questions: tuple[str, ...]

    def __call__(self, model: UnifiedModel, batch: Mapping[str, Tensor]) -> Tensor:
        """Return log-odds, shape (B,), in nats; ``batch`` holds ``pixels_BCHW`` and ``text_B``, indices of texts."""
        questions = [[q.replace("{prompt}", self.texts[i]) for q in self.questions] for i in batch["text_B"].tolist()]
        return model.judge_logit(batch["pixels_BCHW"], questions).mean(1)


def generation_source(model: UnifiedModel, texts: Sequence[str], drawings_B: Tensor) -> Source:
    """Return the images as samples of the generation branch."""
    prompt = model.encode_prompt(texts)
    drawings_B = drawings_B.to(prompt.ids_BL.device)
    return image_logp, {"ids_BL": prompt.ids_BL, "mask_BL": prompt.mask_BL, "drawings_B": drawings_B}


def understanding_source(
    model: UnifiedModel, texts: Sequence[str], drawings_B: Tensor, questions: Sequence[str]
) -> Source:
    """Return the images as inputs of the understanding branch."""
    device = next(model.parameters()).device
    batch = {"pixels_BCHW": model.decode(drawings_B.to(device)), "text_B": torch.arange(len(texts), device=device)}
    return YesLogOdds(tuple(texts), tuple(questions)), batch


def paired_sources(model: UnifiedModel, candidates: Sequence[Candidate], questions: Sequence[str]) -> list[Source]:
    """Return both log-likelihoods of candidates, generation first; sample i of both belongs to one candidate.

    Args:
        model: The model.
        candidates: P candidates.
        questions: Phrasings of the judge's question.
    """
    texts, drawings_P = [c.prompt.text for c in candidates], stack_drawings(candidates)
    return [generation_source(model, texts, drawings_P), understanding_source(model, texts, drawings_P, questions)]


def bayes_probes(
    model: UnifiedModel, images: Sequence[Candidate], prompts: Sequence[Sequence[str]], questions: Sequence[str]
) -> Probes:
    """Return probes that compare their own prompt with alternatives by Bayes' formula.

    Args:
        model: The model.
        images: P images.
        prompts: For each image its own prompt and the alternatives, the same number for each.
        questions: Questions of the judge, with ``{prompt}`` for the prompt.
    """
    (count,) = {len(texts) for texts in prompts}
    drawings_P = stack_drawings(images)
    fn, batch = generation_source(
        model, [text for texts in prompts for text in texts], drawings_P.repeat_interleave(count, 0)
    )
    return Probes(fn, batch, count, understanding_source(model, [texts[0] for texts in prompts], drawings_P, questions))
