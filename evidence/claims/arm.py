"""One arm of the evidence: a shipped config of ``unigap fit`` and the options in which the arm differs from it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from evidence.fit import Overrides, read_shipped
from unigap.report.run_folder.fit_folder import flat

SHARED = ("run", "summary", "data", "model.model", "model.external", "model.warmup_steps")
"""Options that the setting decides for all arms, by short name."""


@dataclass(frozen=True)
class Arm:
    """How a model is improved in one arm.

    Attributes:
        config: Name of a config in ``configs/shapes``.
        overrides: Options of ``unigap fit`` in which the arm differs from the config.
        prompts: ``standard`` or ``hard`` training and test prompts.
        steps_of: Name of another arm; train for as many optimizer steps as that arm took. ``""`` counts epochs.
    """

    config: str
    overrides: Overrides = field(default_factory=dict)
    prompts: str = "standard"
    steps_of: str = ""

    def but(self, overrides: Overrides | None = None, **changes: Any) -> Arm:
        """Return the same arm with more overrides and other fields changed."""
        return dataclasses.replace(self, overrides={**self.overrides, **(overrides or {})}, **changes)

    def recipe(self) -> dict[str, Any]:
        """Return everything that the arm's results depend on apart from the setting and the seed, as plain JSON.

        Options have short names, and classes their name without the module, so that neither a moved module nor an
        option moved from the overrides to the config makes recorded results stale.
        """
        options = {name: value for name, value in flat(read_shipped(self.config)).items() if not _is_shared(name)}
        for option, value in self.overrides.items():
            name = option.replace(".init_args", "")
            options = {kept: old for kept, old in options.items() if not f"{kept}.".startswith(f"{name}.")}
            options |= flat({name: value})
        options = {name: _without_modules(value) for name, value in sorted(options.items())}
        return {"options": options, "prompts": self.prompts, "steps_of": self.steps_of}


def _is_shared(name: str) -> bool:
    return any(f"{name}.".startswith(f"{shared}.") for shared in SHARED)


def _without_modules(value: Any) -> Any:
    """Replace the class paths inside of lists by class names."""
    if isinstance(value, Mapping):
        return {
            name: inner.rpartition(".")[2] if name == "class_path" else _without_modules(inner)
            for name, inner in value.items()
        }
    return [_without_modules(inner) for inner in value] if isinstance(value, list) else value
