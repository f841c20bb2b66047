"""The plain verbs: functions whose signatures are their options."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from jsonargparse import auto_cli

from unigap.commands.benchmarks import prompts_audit, prompts_import, score_compbench, score_dsg, score_geneval
from unigap.console.parser import ClearParser
from unigap.evidence.verbs import EVIDENCE
from unigap.pages.report import write_report
from unigap.storage.damage import find_damage
from unigap.storage.layout import HEAD


def gap(
    checkpoint: str = "shapes",
    prompts: str = "shapes",
    split: str = "test",
    per_cell: int = 20,
    candidates: int = 4,
    cfg: float | None = None,
    temperature: float = 1.0,
    seed: int = 0,
    out: str | None = None,
) -> None:
    """Measure the gap of a checkpoint: how often its own judge rejects what it draws, and who is right.

    Args:
        checkpoint: ``shapes`` or another shipped model, a folder, or a hub id.
        prompts: ``shapes``, a published set as ``NAME:PATH``, or a ``.txt`` or ``.jsonl`` file; the oracle, who knows
            better, reads sentences of the embedded world only.
        split: Split of the prompts.
        per_cell: At most this many prompts for each (category, difficulty).
        candidates: Images drawn for each prompt.
        cfg: Classifier-free guidance scale, >= 1; that of the checkpoint where left out.
        temperature: Sampling temperature, >= 0.
        seed: Seed of the drawings.
        out: JSON file for the figures.
    """
    from unigap.commands.gap import measure_checkpoint
    from unigap.models.base import SamplingRecipe
    from unigap.models.families import load_model
    from unigap.rounds import RoundPlan

    if out and (Path(out).is_dir() or not Path(out).parent.is_dir()):
        raise ValueError(f"--out {out!r} is no file in a folder that exists; give the name of a JSON file")
    # before the weights are loaded: what is out of range is told at once
    sampling = SamplingRecipe(temperature, 1.0 if cfg is None else cfg)
    model = load_model(checkpoint)
    if cfg is None:
        sampling = replace(sampling, cfg=model.usual_cfg)
    measure_checkpoint(model, prompts, split, per_cell, RoundPlan(candidates, sampling, seed=seed), out)


def demo(
    out: str = "runs/demo",
    seed: int = 0,
    checkpoint: str = "shapes",
    logger: Literal["csv", "wandb"] = "csv",
    overwrite: bool = False,
) -> None:
    """Watch the gap close on the embedded world: about two minutes on two CPU cores.

    Args:
        out: Folder for the report, the summary and the pool.
        seed: Seed of everything that is drawn.
        checkpoint: ``shapes`` or another shipped model, or a folder.
        logger: Where curves go: ``csv``, or ``wandb`` in offline mode (``wandb sync`` uploads it).
        overwrite: Replace an earlier demo in ``out``.
    """
    from unigap.commands.demo import show_demo

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
    if not (Path(folder) / HEAD).exists():
        print(f"it carries no {HEAD}, as in earlier versions: rounds deleted from its end would not be noticed")


def calibrate(
    checkpoint: str = "shapes", precision: float = 0.9, captions: str | None = None, n: int = 600, seed: int = 0
) -> None:
    """Find the lowest threshold at which enough of what a checkpoint's own judge accepts is right.

    Args:
        checkpoint: ``shapes`` or another shipped model, a folder, or a hub id.
        precision: Least share of the accepted images that are right, in (0, 1].
        captions: ``.jsonl`` file of images with captions, ``{"image": path, "caption": text}``, every second of which
            is given another's caption; null takes renders of the embedded world.
        n: Pairs; the threshold is chosen on one half and examined on the other.
        seed: Which pairs.
    """
    from unigap.evaluation.calibration import calibrate as find
    from unigap.evaluation.known_pairs import CaptionedFile, ShapesPairs
    from unigap.judges import SelfJudge
    from unigap.models.families import load_model

    pairs = CaptionedFile(captions, seed=seed) if captions else ShapesPairs(seed=seed)
    found = find(load_model(checkpoint), SelfJudge(), pairs, n, precision)
    print(f"of the accepted, right: {found.precision}\nof the right, accepted: {found.recall}")
    print(f"--model.init_args.objective.init_args.threshold {found.threshold:.8g}")


def judge_export(
    pool: str,
    out: str = "runs/judging",
    checkpoint: str = "shapes",
    n: int = 200,
    seed: int = 0,
    blind: bool = True,
) -> None:
    """Write drawings of a pool for people to judge: PNG images and a sheet, verdicts.csv, to fill in with yes and no.

    Args:
        pool: The pool.
        out: Folder for the images and the sheet.
        checkpoint: The model that drew them: ``shapes`` or another shipped model, a folder, or a hub id.
        n: How many drawings that nobody has judged yet; all where there are fewer.
        seed: Which ones.
        blind: Keep from the sheet what the model's own judge said; ``false`` adds its probability of yes.
    """
    from unigap.commands.judge import export_drawings
    from unigap.models.families import load_model

    print(f"fill in: {export_drawings(load_model(checkpoint), pool, out, n, seed, blind)}")


def judge_import(pool: str, sheet: str, name: str = "human", ties: Literal["refuse", "yes", "no"] = "refuse") -> None:
    """Store the verdicts of a filled-in sheet beside the judgments of a pool; they are never changed.

    Args:
        pool: The pool.
        sheet: CSV file with the columns ``candidate_id``, ``verdict`` and, for several raters, ``rater``.
        name: Whose verdicts they are.
        ties: What as many yes as no means.
    """
    from unigap.commands.judge import import_verdicts

    print(f"{pool}: {import_verdicts(pool, sheet, name, ties)} verdicts by {name!r}")


def judge_agreement(pool: str, judges: str = "") -> None:
    """Show how often the judges of a pool say yes, and how far they agree beyond chance.

    Args:
        pool: The pool.
        judges: Their names, with commas between them, e.g. ``self,oracle,human``; all where left out.
    """
    from unigap.commands.judge import print_agreement

    print_agreement(pool, [name.strip() for name in judges.split(",") if name.strip()])


def export_pool(
    pool: str, *, out: str, license: str = "unknown", checkpoint: str = "shapes", threshold: float = 0.5
) -> None:
    """Write a pool as a data set for the Hugging Face hub: Parquet with pictures and every verdict, and a card.

    Args:
        pool: The pool.
        out: Folder to write; it is empty or does not exist yet.
        license: Licence of the data as the hub writes it, e.g. cc-by-4.0.
        checkpoint: The model that drew the pool, which turns its image tokens into pictures.
        threshold: Least probability of yes that the card and the column ``accepted`` count as accepted, in (0, 1).
    """
    from unigap.commands.export_pool import export_pool as write

    write(pool, out, license, checkpoint, threshold)
    print(f"data set: {out}")


def export_model(run: str, *, out: str, license: str = "unknown", adapter: bool = False) -> None:
    """Write what a run trained for the Hugging Face hub: a checkpoint or an adapter, its card and its recipe.

    Args:
        run: The run folder of ``unigap fit``, or its Lightning checkpoint.
        out: Folder to write; it is empty or does not exist yet.
        license: Licence of the weights as the hub writes it, e.g. apache-2.0.
        adapter: Write the LoRA adapter alone; otherwise it is merged.
    """
    from unigap.commands.export_model import export_model as write

    write(run, out, license, adapter)
    print(f"model: {out}")


COMMANDS: dict[str, Any] = {
    "demo": demo,
    "gap": gap,
    "calibrate": calibrate,
    "report": report,
    "judge": {"export": judge_export, "import": judge_import, "agreement": judge_agreement},
    "pool": {"verify": verify},
    "prompts": {"import": prompts_import, "audit": prompts_audit},
    "score": {"geneval": score_geneval, "compbench": score_compbench, "dsg": score_dsg},
    "export": {"pool": export_pool, "model": export_model},
    "evidence": EVIDENCE,
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
