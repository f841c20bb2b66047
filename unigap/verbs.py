"""The plain verbs: functions whose signatures are their options."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from jsonargparse import auto_cli

from unigap.damage import find_damage
from unigap.parser import ClearParser
from unigap.report import write_report


def gap(
    checkpoint: str = "shapes",
    prompts: str = "shapes",
    split: str = "test",
    per_cell: int = 20,
    candidates: int = 4,
    cfg: float = 1.0,
    temperature: float = 1.0,
    seed: int = 0,
    out: str | None = None,
) -> None:
    """Measure the gap of a checkpoint: how often its own judge rejects what it draws, and who is right.

    Args:
        checkpoint: ``shapes``, a transformers folder, or a hub id.
        prompts: ``shapes``, or a ``.txt`` or ``.jsonl`` file of sentences of the embedded world.
        split: Split of the prompts.
        per_cell: At most this many prompts for each (category, difficulty).
        candidates: Images drawn for each prompt.
        cfg: Classifier-free guidance scale, >= 1.
        temperature: Sampling temperature, >= 0.
        seed: Seed of the drawings.
        out: JSON file for the figures.
    """
    from unigap.gap_command import measure_checkpoint
    from unigap.models.base import SamplingRecipe
    from unigap.rounds import RoundPlan

    if out and (Path(out).is_dir() or not Path(out).parent.is_dir()):
        raise ValueError(f"--out {out!r} is no file in a folder that exists; give the name of a JSON file")
    plan = RoundPlan(candidates, SamplingRecipe(temperature, cfg), seed=seed)
    measure_checkpoint(checkpoint, prompts, split, per_cell, plan, out)


def demo(
    out: str = "runs/demo",
    seed: int = 0,
    checkpoint: str = "shapes",
    logger: Literal["csv", "wandb"] = "csv",
    overwrite: bool = False,
) -> None:
    """Watch the gap close on the embedded world: about three minutes on two CPU cores.

    Args:
        out: Folder for the report, the summary and the pool.
        seed: Seed of everything that is drawn.
        checkpoint: The model: the shipped one, or a folder.
        logger: Where curves go: ``csv``, or ``wandb`` in offline mode (``wandb sync`` uploads it).
        overwrite: Replace an earlier demo in ``out``.
    """
    from unigap.demo import show_demo

    show_demo(out, seed, checkpoint, logger, overwrite)


def report(run: str, out: str | None = None) -> None:
    """Make the HTML report of a run folder.

    Args:
        run: The run folder, with its ``summary.json``.
        out: The page; ``report.html`` in the run folder where left out.
    """
    print(f"report: {write_report(run, out)}")


def verify(folder: str) -> None:
    """Check every file of a pool against its manifests.

    Args:
        folder: The pool.
    """
    if not Path(folder).is_dir():
        raise ValueError(f"pool {folder!r}: no such folder")
    damage = find_damage(folder)
    if damage:
        raise ValueError("; ".join(damage))
    print(f"{folder}: sound")


def evidence_guard(
    out: str = "docs/evidence",
    work: str = "runs/evidence/guard",
    checkpoint: str = "shapes",
    seeds: int = 10,
    epochs: int = 6,
) -> None:
    """Count how often the co-degradation guard notices corrupted selection, and how often it is wrong.

    Args:
        out: Folder for ``guard.md`` and ``guard.json``.
        work: Folder of the runs; those it holds are not made again.
        checkpoint: The model: the shipped one, or a folder.
        seeds: Runs of each corrupted arm; the clean one has twice as many.
        epochs: Epochs of a run.
    """
    from unigap.evidence.guard import GuardPlan, guard_evidence

    for path in guard_evidence(GuardPlan(checkpoint, seeds, epochs), out, work):
        print(f"evidence: {path}")


def evidence_theory(
    out: str = "docs/evidence",
    work: str = "runs/evidence/theory",
    checkpoint: str = "shapes",
    seeds: int = 3,
) -> None:
    """Measure what theory says of self-improvement, and whether it is true: about half an hour on two CPU cores.

    Args:
        out: Folder for ``theory.md``, its figures and ``theory.json``.
        work: Folder of the arms; those it holds are not measured again.
        checkpoint: The embedded model: the shipped one, or a folder.
        seeds: Number of seeds, counted from 0; three or more give intervals.
    """
    from unigap.evidence.theory import measure_theory
    from unigap.evidence.theory_plan import TheoryPlan

    plan = TheoryPlan(checkpoint=checkpoint, seeds=tuple(range(seeds)))
    print(f"evidence: {measure_theory(plan, Path(out), Path(work))}")


COMMANDS: dict[str, Any] = {
    "demo": demo,
    "gap": gap,
    "report": report,
    "pool": {"verify": verify},
    "evidence": {"guard": evidence_guard, "theory": evidence_theory},
}


class _Parser(ClearParser):
    def parse_args(self, *args: Any, **kwargs: Any) -> Any:
        for action in self._actions:
            if isinstance(action.default, bool):  # a switch is turned on by its name alone
                action.nargs, action.const = "?", True
        return super().parse_args(*args, **kwargs)


def run(words: Sequence[str]) -> int:
    """Runs a plain verb with its options."""
    options: dict[str, Any] = {"exit_on_error": False, "allow_abbrev": False}
    auto_cli(COMMANDS, args=list(words), as_positional=True, parser_class=_Parser, prog="unigap", **options)
    return 0
