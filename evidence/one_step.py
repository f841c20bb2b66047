"""Compare one SGD step of SFT and DPO with the predictions of Lemmas 1 to 4.

Shape legend: P probes, A alternative prompts of a probe (its own first), U training samples, M image tokens.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

import theory
from evidence.results_file import Result
from evidence.theory_plan import TheoryPlan, read_pool, trained_state
from unigap.callbacks.dynamics_probes import bayes_probes, generation_source, image_logp
from unigap.judges import SelfJudge
from unigap.loop.sampling import stack_drawings
from unigap.loop.selection import preference_pairs
from unigap.models.base import UnifiedModel
from unigap.models.janus import Janus
from unigap.records import Candidate
from unigap.worlds.shapes.lessons import alternatives

BUDGETS = (0.01, 0.03, 0.1, 0.3, 1.0)
"""Step sizes, as the first-order decrease of the loss in nats."""
BETA = 0.1
ROUNDING = 5.0e-6
"""Errors below this, in nats, are float32 rounding."""
SMALL = 0.3
"""Errors above this share of the change are not dominated by the second order."""
READINGS = ("generation", "bayes", "head")


def one_step(plan: TheoryPlan, seed: int, folder: Path) -> Result:
    """Take steps of several sizes on SFT and DPO, and compare each reading with its lemma.

    Returns:
        By objective and reading: ``fits`` for each step size, ``order`` of the error in the step size (``None`` if
        fewer than two steps have an error in its range), ``predicted`` and ``measured`` at the second smallest step.
    """
    model = Janus(plan.checkpoint)
    judged = read_pool(folder)
    images = judged.probes(plan.step_probes, seed).candidates
    probes = shapes_probes(model, images, plan.alternatives, seed)
    rng = random.Random(f"one step {seed}")
    accepted = judged.accepted(plan.keep)
    rows = rng.sample(accepted, min(plan.train_rows, len(accepted)))
    train = _source(model, rows)

    def sft_loss() -> Tensor:
        return -image_logp(model, train[1]).mean()

    found = {"sft": _try_steps(model, probes, sft_loss, theory.predict_sft(model, probes, train, 1.0))}
    pairs = preference_pairs(judged.candidates, judged.own)
    pairs = rng.sample(pairs, min(plan.train_rows, len(pairs)))
    chosen, rejected = (_source(model, [getattr(pair, side) for pair in pairs]) for side in ("chosen", "rejected"))
    with torch.no_grad():
        reference = image_logp(model, chosen[1]), image_logp(model, rejected[1])

    def margins() -> Tensor:
        return theory.dpo_margins(image_logp(model, chosen[1]), image_logp(model, rejected[1]), *reference, BETA)

    # if policy and reference were equal, all margins would be zero and the factor sigma(-alpha) untested
    with model.with_state(trained_state(folder)):
        with torch.no_grad():
            alpha_U = margins()
        unit = theory.predict_dpo(model, probes, chosen, rejected, alpha_U, BETA, 1.0)
        found["dpo"] = _try_steps(model, probes, lambda: theory.dpo_loss(margins()), unit)
    return found


def shapes_probes(model: UnifiedModel, images: tuple[Candidate, ...], count: int, seed: int) -> theory.Probes:
    """Return probes that compare their prompt with hard negatives of it, ``count`` prompts in total."""
    prompts = [alternatives(image.prompt.text, count, seed) for image in images]
    return bayes_probes(model, images, prompts, SelfJudge().questions)


def _try_steps(model: UnifiedModel, probes: theory.Probes, loss: Callable[[], Tensor], unit: theory.Readings) -> Result:
    params = {name: p for name, p in model.named_parameters() if p.requires_grad}
    grads = dict(zip(params, torch.autograd.grad(loss(), list(params.values())), strict=True))
    squared = float(sum(grad.double().square().sum() for grad in grads.values()))
    etas = [budget / squared for budget in BUDGETS]
    before = theory.read(model, probes)
    changes = []
    for eta in etas:
        with _moved(model, grads, -eta):
            changes.append(theory.read(model, probes).since(before))
    found: Result = {}
    for name in READINGS:
        predicted = [eta * getattr(unit, name).double() for eta in etas]
        measured = [getattr(change, name) for change in changes]
        errors = torch.stack([(m - p).square().mean().sqrt() for p, m in zip(predicted, measured, strict=True)])
        sizes = torch.stack([p.square().mean().sqrt() for p in predicted])
        in_range = (errors > ROUNDING) & (errors < SMALL * sizes)
        found[name] = {
            "fits": [vars(theory.fit(p, m)) for p, m in zip(predicted, measured, strict=True)],
            "order": theory.error_order(torch.tensor(etas)[in_range], errors[in_range]) if in_range.sum() > 1 else None,
            "predicted": predicted[1].tolist(),
            "measured": measured[1].tolist(),
        }
    return found


@contextmanager
def _moved(model: UnifiedModel, direction: dict[str, Tensor], length: float) -> Iterator[None]:
    params = dict(model.named_parameters())
    with model.with_state({name: params[name].detach() + length * change for name, change in direction.items()}):
        yield


def _source(model: UnifiedModel, rows: list[Candidate]) -> theory.Source:
    return generation_source(model, [row.prompt.text for row in rows], stack_drawings(rows))
