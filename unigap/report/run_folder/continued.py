"""Make sure that a continued run keeps its recipe, except for the settings that may change."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from typing import Any

LENGTH = (
    "trainer.max_epochs",
    "trainer.max_steps",
    "trainer.max_time",
    "trainer.min_epochs",
    "trainer.min_steps",
    "trainer.limit_train_batches",
)
FREE = {
    "how long it trains": LENGTH,
    "where it lies": (
        "run",
        "checkpoint.*",
        "curves.*",
        "rows.*",
        "summary.folder",
        "data.init_args.pool",
        "model.init_args.out",
        "trainer.default_root_dir",
        "gap_out",
        "resume",
        "ckpt_path",
        "weights_only",
    ),
    "what it tells": (
        "summary.gallery",
        "trainer.logger*",
        "trainer.log_every_n_steps",
        "trainer.enable_*",
        "trainer.profiler*",
        *(
            f"trainer.callbacks.{name}*"
            for name in (
                "Artifacts",
                "CurveLog",
                "DeviceStatsMonitor",
                "Gallery",
                "LearningRateMonitor",
                "ModelCheckpoint",
                "ModelSummary",
                "RichProgressBar",
                "RowLog",
                "ThroughputMonitor",
                "Timer",
                "TQDMProgressBar",
            )
        ),
    ),
    "on what it runs, and how fast": (
        "trainer.accelerator",
        "trainer.devices",
        "trainer.num_nodes",
        "trainer.strategy*",
        "trainer.plugins*",
        "trainer.benchmark",
        "trainer.deterministic",
        "trainer.detect_anomaly",
        "data.init_args.eval_batch",
        "*.images_per_batch",
    ),
    "other verbs": ("model.init_args.predict_plan*",),
}
"""Settings that a continued run may change, by what they decide; patterns of ``fnmatch``."""
END = ("trainer.max_epochs", "trainer.max_steps", "trainer.limit_train_batches")
"""Settings that decide when a run ends. A learning rate that falls until then keeps them."""
SHOWN = 40
"""Characters of a value in a message."""
MODEL = "model.init_args.model"


def check_same_recipe(old: Mapping[str, Any], new: Mapping[str, Any], checkpoint: str) -> None:
    """Make sure that a run continues with the recipe it was trained with.

    Args:
        old: The resolved config in the checkpoint.
        new: The resolved config now.
        checkpoint: Path of the checkpoint, for the message.

    Raises:
        ValueError: A setting outside ``FREE`` has another value, or the end of a run whose learning rate falls.
    """
    changed = changes(old, new)
    if not changed:
        return
    name, (before, now) = next(iter(changed.items()))
    more = f" (and {len(changed) - 1} more)" if len(changed) > 1 else ""
    more += ", and the learning rate falls until the end of the run" if name in END else ""
    start = (
        "unigap export model gives a checkpoint for it"
        if name.startswith(MODEL)
        else f"begin a new stage: --model.init_args.init_from {checkpoint} and other folders"
    )
    raise ValueError(f"--{name} was {_shown(before)} and is {_shown(now)}{more}; set it back, or {start}")


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return the settings that differ but must not, by option, with the old and the new value.

    The end of the run must not differ if the learning rate falls until then.

    >>> changes({"trainer": {"max_epochs": 1}, "seed": 0}, {"trainer": {"max_epochs": 2}, "seed": 1})
    {'seed': (0, 1)}
    """
    before, now = options(old), options(new)
    names = [*before, *(name for name in now if name not in before)]
    differing = ((name, before.get(name), now.get(name)) for name in names if before.get(name) != now.get(name))
    fixed = END if length_is_fixed(old) else ()
    return {name: (one, other) for name, one, other in differing if name in fixed or not is_free(name)}


def length_is_fixed(recipe: Mapping[str, Any]) -> bool:
    """Return whether a continued run must keep its end, because the learning rate falls until then.

    >>> length_is_fixed({"model": {"init_args": {"lr_schedule": {"class_path": "unigap.stages.Cosine"}}}})
    True
    """
    stage = (recipe.get("model") or {}).get("init_args") or {}
    name = str((stage.get("lr_schedule") or {}).get("class_path", ""))
    return bool(name) and name.rpartition(".")[2] != "Constant"


def length_options(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that decide how long a run trains."""
    return {name: value for name, value in options(config).items() if name in LENGTH}


def is_free(name: str) -> bool:
    """Return whether a continued run may change a setting."""
    return any(fnmatch.fnmatchcase(name, pattern) for patterns in FREE.values() for pattern in patterns)


def options(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return settings by option; callbacks go by class name, with ``+`` for a second one of a class.

    >>> options({"trainer": {"callbacks": [{"class_path": "a.B", "init_args": {"c": 1}}]}})
    {'trainer.callbacks.B': 'a.B', 'trainer.callbacks.B.c': 1}
    """
    found: dict[str, Any] = {}
    for key, value in config.items():
        name = f"{prefix}{key}"
        if name == "trainer.callbacks":
            found |= _callbacks(value or [], name)
        elif isinstance(value, Mapping):
            found |= options(value, f"{name}.")
        else:
            found[name] = value
    return found


def _callbacks(listed: Any, prefix: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for callback in listed if isinstance(listed, list) else [listed]:
        spec = callback if isinstance(callback, Mapping) else {"class_path": callback}
        name = f"{prefix}.{str(spec['class_path']).rpartition('.')[2]}"
        while name in found:
            name += "+"
        found |= {name: spec["class_path"]} | options(spec.get("init_args") or {}, f"{name}.")
    return found


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."
