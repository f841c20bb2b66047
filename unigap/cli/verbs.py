"""The plain verbs: functions whose signatures are their options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jsonargparse import auto_cli

from unigap.cli.commands.benchmarks import prompts_audit, prompts_import, score_compbench, score_dsg, score_geneval
from unigap.console.parser import ClearParser
from unigap.pool.damage import find_damage
from unigap.pool.layout import HEAD
from unigap.report.pages.report import write_report
from unigap.world import import_worlds

if TYPE_CHECKING:
    from unigap.models.base import UnifiedModel


def report(run: str, out: str = "") -> None:
    """Make the HTML report of a run folder.

    Args:
        run: The run folder, with its ``summary.json``.
        out: The page; ``report.html`` in the run folder where left out.
    """
    print(f"report: {write_report(run, out)}")


def inspect(target: str) -> None:
    """List which classes a config, checkpoint or folder would import and where it would write, without importing them.

    Args:
        target: A config, a Lightning checkpoint, or the folder of a run or a model.
    """
    from unigap.cli.commands.inspect import inspect_path

    print("\n".join(inspect_path(target)))


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


def judge_export(
    pool: str,
    out: str = "runs/judging",
    checkpoint: str | None = None,
    n: int = 200,
    seed: int = 0,
    blind: bool = True,
    *,
    model: UnifiedModel | None = None,
    device: str | None = None,
) -> None:
    """Write drawings of a pool for people to judge: PNG images and a sheet, verdicts.csv, to fill in with yes and no.

    Args:
        pool: The pool.
        out: Folder for the images and the sheet.
        checkpoint: The model that drew them: a shipped model, a folder, a hub id, or a run of ``unigap fit``; where
            left out, the model of the run whose folder holds the pool, else ``shapes``.
        n: How many drawings that nobody has judged yet; all where there are fewer.
        seed: Which ones.
        blind: Keep from the sheet what the model's own judge said; ``false`` adds its probability of yes.
        model: A model of your own by its class path, in place of ``checkpoint``.
        device: Where it runs, e.g. ``cuda:1``; the GPU where there is one, else the CPU, where left out.
    """
    from unigap.cli.commands.judge import export_drawings
    from unigap.cli.commands.model_choice import ModelChoice

    chosen, _ = ModelChoice(checkpoint, model, device).load_for_pool(pool)
    print(f"fill in: {export_drawings(chosen, pool, out, n, seed, blind)}")


def judge_import(pool: str, sheet: str, name: str = "human", ties: Literal["refuse", "yes", "no"] = "refuse") -> None:
    """Store the verdicts of a filled-in sheet beside the judgments of a pool; they are never changed.

    Args:
        pool: The pool.
        sheet: CSV file with the columns ``candidate_id``, ``verdict`` and, for several raters, ``rater``.
        name: Whose verdicts they are.
        ties: What as many yes as no means.
    """
    from unigap.cli.commands.judge import import_verdicts

    print(f"{pool}: {import_verdicts(pool, sheet, name, ties)} verdicts by {name!r}")


def judge_agreement(pool: str, judges: str = "") -> None:
    """Show how often the judges of a pool say yes, and how far they agree beyond chance.

    Args:
        pool: The pool.
        judges: Their names, with commas between them, e.g. ``self,oracle,human``; all where left out.
    """
    from unigap.cli.commands.judge import print_agreement

    print_agreement(pool, [name.strip() for name in judges.split(",") if name.strip()])


def export_pool(
    pool: str,
    *,
    out: str,
    license: str = "unknown",
    checkpoint: str | None = None,
    threshold: float = 0.5,
    judge: str | None = None,
    model: UnifiedModel | None = None,
    device: str | None = None,
) -> None:
    """Write a pool as a data set for the Hugging Face hub: Parquet with pictures and every verdict, and a card.

    Args:
        pool: The pool.
        out: Folder to write; it is empty or does not exist yet.
        license: Licence of the data as the hub writes it, e.g. cc-by-4.0.
        checkpoint: The model that drew the pool, which turns its image tokens into pictures; where left out, that of
            the run whose folder holds the pool, else ``shapes``.
        threshold: Least probability of yes that the card and the column ``accepted`` count as accepted, in (0, 1).
        judge: Judge that selects, e.g. human; the one that the pool records where left out.
        model: A model of your own by its class path, in place of ``checkpoint``.
        device: Where it runs, e.g. ``cuda:1``; the GPU where there is one, else the CPU, where left out.
    """
    from unigap.cli.commands.export_pool import export_pool as write
    from unigap.cli.commands.model_choice import ModelChoice

    write(pool, out, license, ModelChoice(checkpoint, model, device), threshold, judge)
    print(f"data set: {out}")


def export_model(run: str, *, out: str, license: str = "unknown", adapter: bool = False) -> None:
    """Write what a run trained for the Hugging Face hub: a checkpoint or an adapter, its card and its recipe.

    Args:
        run: The run folder of ``unigap fit``, or its Lightning checkpoint.
        out: Folder to write; it is empty or does not exist yet.
        license: Licence of the weights as the hub writes it, e.g. apache-2.0.
        adapter: Write the LoRA adapter alone; otherwise it is merged.
    """
    from unigap.cli.commands.export_model import export_model as write

    write(run, out, license, adapter)
    print(f"model: {out}")


COMMANDS: dict[str, Any] = {  # a module, imported when its verb is asked for, holds a function of the verb's name
    "demo": "unigap.cli.commands.demo",
    "gap": "unigap.cli.commands.gap",
    "calibrate": "unigap.cli.commands.calibrate",
    "report": report,
    "inspect": inspect,
    "judge": {"export": judge_export, "import": judge_import, "agreement": judge_agreement},
    "pool": {"verify": verify},
    "prompts": {"import": prompts_import, "audit": prompts_audit},
    "score": {"geneval": score_geneval, "compbench": score_compbench, "dsg": score_dsg},
    "export": {"pool": export_pool, "model": export_model},
}


class _Parser(ClearParser):
    def parse_args(self, *args: Any, **kwargs: Any) -> Any:
        for action in self._actions:
            if isinstance(action.default, bool):  # a switch is turned on by its name alone
                action.nargs, action.const = "?", True
        return super().parse_args(*args, **kwargs)


def run(words: Sequence[str]) -> int:
    """Runs a plain verb with its options."""
    verb = words[0]
    command = COMMANDS[verb]
    if isinstance(command, str):
        command = getattr(import_module(command), verb)
        import_worlds()
    return run_function({verb: command}, words, "unigap")


def run_function(functions: Mapping[str, Any], words: Sequence[str], prog: str) -> int:
    """Call the function that the first word names, with the other words as its options.

    Args:
        functions: Functions by name; a mapping of them is a verb of two words.
        words: The words of the command line.
        prog: How the program is called, for its help.
    """
    options: dict[str, Any] = {"exit_on_error": False, "allow_abbrev": False}
    auto_cli(dict(functions), args=list(words), as_positional=True, parser_class=_Parser, prog=prog, **options)
    return 0
