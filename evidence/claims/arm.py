"""One arm of the evidence: a recipe of self-improvement as plain data, and what it becomes."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Literal

Spec = Mapping[str, Any]
"""A class as configs name it: ``class_path`` and ``init_args``."""


def spec(class_path: str, **init_args: Any) -> dict[str, Any]:
    """A class with arguments, as a config would name it."""
    return {"class_path": class_path, "init_args": init_args}


def build(value: Any) -> Any:
    """Makes what a spec names; lists and mappings are searched, anything else is itself."""
    if isinstance(value, Mapping):
        made = {name: build(inner) for name, inner in value.items()}
        if set(value) != {"class_path", "init_args"}:
            return made
        module, _, name = value["class_path"].rpartition(".")
        return getattr(import_module(module), name)(**made["init_args"])
    return [build(inner) for inner in value] if isinstance(value, list) else value


SFT = spec("unigap.objectives.SFT", keep=4)
DPO = spec("unigap.objectives.DPO", per_prompt=2)
SELF = spec("unigap.judges.SelfJudge")


@dataclass(frozen=True)
class Arm:
    """How a model is improved in one arm.

    Attributes:
        objective: What is learned.
        judge: Who selects.
        model: Options of the model.
        regrow: Options of ``RedrawSchedule``, and the ``allocation`` of ``Regrow``; empty draws one round.
        callbacks: Further callbacks.
        candidates: Images drawn for each prompt of a round.
        epochs: Epochs.
        lr: Learning rate.
        prompts: ``standard`` or ``hard`` training and test prompts.
        order: Order of the rows in an epoch.
        precision: Share of what is accepted that shall be right on rendered pictures, to which the threshold is
            calibrated; 0 keeps the objective's.
        steps_of: Name of the arm whose number of optimizer steps this one takes; ``""`` counts epochs.
    """

    objective: Spec = field(default_factory=lambda: SFT)
    judge: Spec = field(default_factory=lambda: SELF)
    model: Mapping[str, Any] = field(default_factory=dict)
    regrow: Mapping[str, Any] = field(default_factory=dict)
    callbacks: tuple[Spec, ...] = ()
    candidates: int = 8
    epochs: int = 4
    lr: float = 1.5e-4
    prompts: str = "standard"
    order: Literal["random", "easy_first"] = "random"
    precision: float = 0.0
    steps_of: str = ""

    def but(self, **changes: Any) -> Arm:
        """The same arm with some things changed."""
        return dataclasses.replace(self, **changes)

    def recipe(self) -> dict[str, Any]:
        """Everything the arm's results depend on, beside the setting and the seed, as plain JSON."""
        return json.loads(json.dumps(dataclasses.asdict(self)))
