"""``unigap check``: whether a model keeps the promises of the protocol."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path

from unigap.cli.commands.model_choice import DEFAULT, ModelChoice
from unigap.console import tasks
from unigap.console.closing import close, command
from unigap.models.base import UnifiedModel
from unigap.testing import Subject, outcomes
from unigap.testing.subject import QUESTIONS, TEXTS

WORDS = {True: "holds", False: "BROKEN", None: "left out"}


def check(
    checkpoint: str | None = None,
    *,
    model: UnifiedModel | None = None,
    texts: list[str] | None = None,
    questions: list[str] | None = None,
    candidates: int = 2,
    device: str | None = None,
    dtype: str | None = None,
) -> None:
    """Check that a model keeps the promises of the protocol: shapes, ranges, seeds, likelihoods, what trains, saving.

    Args:
        checkpoint: ``shapes`` (the default) or another shipped model, a folder, a hub id, or a run of ``unigap fit``.
        model: A model of your own by its class path, instead of ``checkpoint``; its options are ``--model.OPTION``.
        texts: Two or more prompts that the model understands, the first shorter than the second.
        questions: Two or more yes-no questions.
        candidates: Images sampled for each prompt, >= 2.
        device: Device to run on, e.g. ``cuda:1``. Default: the GPU if there is one, else the CPU.
        dtype: Precision of the weights of ``checkpoint``, ``float32`` or ``bfloat16``.
    """
    chosen = ModelChoice(checkpoint, model, device, dtype).load()
    subject = Subject(chosen, texts or TEXTS, questions or QUESTIONS, candidates, _reload(chosen))
    broken = checked = 0
    with tasks.task("checking", f"checking {type(chosen).__name__}"):
        for outcome in outcomes(subject):
            print(f"{WORDS[outcome.holds]:8}  {outcome.promise}", flush=True)
            if outcome.holds is False:
                print(f"          {outcome.name}: {outcome.found}", flush=True)
            broken, checked = broken + (outcome.holds is False), checked + (outcome.holds is not None)
        if broken:
            raise ValueError(f"{type(chosen).__name__} breaks {broken} of {checked} promises; see the lines above")
    print(f"{type(chosen).__name__} keeps all {checked} promises that apply to it")
    own = ("--model", f"{type(chosen).__module__}.{type(chosen).__qualname__}")
    close({}, command("gap", *(("--checkpoint", checkpoint or DEFAULT) if model is None else own)))


def _reload(model: UnifiedModel) -> Callable[[Path], UnifiedModel] | None:
    """Return a loader of saved folders for a class whose constructor takes a checkpoint, else ``None``."""
    family = type(model)
    if "checkpoint" not in inspect.signature(family).parameters:
        return None
    return lambda folder: family(checkpoint=str(folder))
