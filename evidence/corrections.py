"""Predict, by the kernel before training, which wrongly accepted images self-improvement corrects.

Shape legend: S test images, T training images, D hidden width.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

import theory
from evidence.one_step import shapes_probes
from evidence.results_file import Result
from evidence.theory_plan import TheoryPlan, read_pool, trained_state
from unigap.callbacks.dynamics_probes import (
    generation_source,
    understanding_source,
)
from unigap.evaluation.gap import Verdicts, measure, rejudge
from unigap.judges import OracleJudge, SelfJudge
from unigap.loop.plan import RoundPlan
from unigap.loop.sampling import stack_drawings
from unigap.metrics.win_rate import matched_yes
from unigap.models.janus import Janus
from unigap.prompt_sets.loading import load_prompts
from unigap.records import Candidate

TEST_SEED = 40_000
BATCH = 128
BAYES_IMAGES = 200


def corrections(plan: TheoryPlan, seed: int, folder: Path) -> Result:
    """Judge held-out images of the base model before and after training; score them by kernel and baselines.

    Returns:
        For each image ``prompt`` (its number), ``before`` and ``after`` (log-odds of yes), ``right``, and scores that
        are higher if the verdict is more likely to turn to no: ``kernel`` and ``kernel_adam`` (minus the first-order
        change of the log-odds along the SFT gradient and along AdamW's first step), ``p_yes``, ``pixels`` and
        ``hidden``. ``bayes`` compares the understanding head with Bayes' formula over all of training.
    """
    model = Janus(plan.checkpoint)
    rows = read_pool(folder).accepted(plan.keep)
    tests = load_prompts("shapes", "test", plan.test_per_cell)
    draws = RoundPlan(plan.test_candidates, seed=TEST_SEED + seed)
    seen = measure(model, tests, draws, SelfJudge(), OracleJudge())
    gradient = _gradient(model, rows)
    step = {name: change / (change.abs() + 1e-8) for name, change in gradient.items()}
    found: Result = {
        "prompt": seen.prompt_S.tolist(),
        "before": seen.own_S.tolist(),
        "right": seen.truth_S.tolist(),
        "kernel": (-_along(model, seen, gradient)).tolist(),
        "kernel_adam": (-_along(model, seen, step)).tolist(),
        "p_yes": (-seen.own_S).tolist(),
        "pixels": (-_nearest(*_pixels(model, seen, rows))).tolist(),
        "hidden": (-_nearest(*_hidden(model, seen, rows))).tolist(),
    }
    drawn = seen.sampled.candidates
    images = [drawn[i] for i in bayes_sample(len(drawn), seed)]
    probes = shapes_probes(model, tuple(images), plan.alternatives, seed)
    before = theory.read(model, probes)
    with model.with_state(trained_state(folder)):
        found["after"] = rejudge(model, seen, SelfJudge()).tolist()
        change = theory.read(model, probes).since(before)
    found["bayes"] = {name: value.tolist() for name, value in vars(change).items()}
    found["matched_yes"] = matched_yes(torch.tensor(found["after"]), int((seen.own_S >= 0).sum())).tolist()
    return found


def bayes_sample(drawings: int, seed: int) -> list[int]:
    """Return the numbers of the images on which the understanding head is compared with Bayes' formula."""
    return random.Random(seed).sample(range(drawings), min(BAYES_IMAGES, drawings))


def categories(plan: TheoryPlan) -> list[str]:
    """Return the category of each test prompt, by its number."""
    return [prompt.category for prompt in load_prompts("shapes", "test", plan.test_per_cell)]


def _gradient(model: Janus, rows: Sequence[Candidate]) -> dict[str, Tensor]:
    """Return the gradient of the mean log-likelihood of the training images: the direction of the first SFT epoch."""
    params = {name: p for name, p in model.named_parameters() if p.requires_grad}
    total = {name: torch.zeros_like(p) for name, p in params.items()}
    for start in range(0, len(rows), BATCH):
        part = rows[start : start + BATCH]
        fn, batch = generation_source(model, [row.prompt.text for row in part], stack_drawings(part))
        grads = torch.autograd.grad(fn(model, batch).sum() / len(rows), list(params.values()))
        for change, grad in zip(total.values(), grads, strict=True):
            change += grad
    return total


def _along(model: Janus, seen: Verdicts, delta: Mapping[str, Tensor]) -> Tensor:
    """Return the first-order change of the log-odds of yes of each test image, (S,)."""
    drawn, changes = seen.sampled.candidates, []
    for start in range(0, len(drawn), BATCH):
        part = drawn[start : start + BATCH]
        source = understanding_source(model, [c.prompt.text for c in part], stack_drawings(part), SelfJudge().questions)
        changes.append(theory.directional(model, [source], delta, "reverse", check=start == 0))
    return torch.cat(changes).double()


def _pixels(model: Janus, seen: Verdicts, rows: Sequence[Candidate]) -> tuple[Tensor, Tensor]:
    return seen.sampled.pixels_BCHW.flatten(1), model.decode(stack_drawings(rows)).flatten(1)


def _hidden(model: Janus, seen: Verdicts, rows: Sequence[Candidate]) -> tuple[Tensor, Tensor]:
    """Return the last hidden state at the answer position, for test images (S, D) and training images (T, D)."""
    kept: list[Tensor] = []
    hook = model.net.lm_head.register_forward_pre_hook(lambda _, args: kept.append(args[0].flatten(0, -2)))
    tests = [c.prompt.text for c in seen.sampled.candidates], seen.sampled.pixels_BCHW
    trained = [row.prompt.text for row in rows], model.decode(stack_drawings(rows))
    states = []
    try:
        for texts, pixels in (tests, trained):
            SelfJudge().ask(model, texts, pixels)
            states.append(torch.cat(kept))
            kept.clear()
    finally:
        hook.remove()
    return states[0], states[1]


def _nearest(tests_SD: Tensor, trained_TD: Tensor) -> Tensor:
    """Return the cosine with the most similar training image, after subtracting the mean training image, (S,)."""
    centre_D = trained_TD.mean(0)
    tests_SD, trained_TD = (F.normalize(side - centre_D, dim=1) for side in (tests_SD, trained_TD))
    return torch.cat([(part_SD @ trained_TD.T).amax(1) for part_SD in torch.split(tests_SD, BATCH)])
