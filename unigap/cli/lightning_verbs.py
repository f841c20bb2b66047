"""``fit``, ``validate`` and ``predict``: LightningCLI with run folders, resume, and checks before a run starts."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from jsonargparse import Namespace
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from unigap.callbacks import CurveLog, PoolWriter, Regrow, RowLog, RunCheckpoint, RunSummary
from unigap.callbacks.requeue import is_requeued
from unigap.callbacks.run_checkpoint import LAST, run_checkpoint
from unigap.callbacks.run_config import RunConfig
from unigap.callbacks.run_progress import RunProgress
from unigap.cli.last_lines import close_fit, close_predict, close_validate
from unigap.console import tasks
from unigap.console.closing import command
from unigap.console.parser import ClearParser
from unigap.console.quiet import quiet_libraries
from unigap.console.run_options import check_run_options
from unigap.console.strict_yaml import read_yaml_strictly
from unigap.files.outputs import POOL_FILE, check_figures, write_figures
from unigap.loop.progress import Phase
from unigap.models.files.lightning_checkpoint import open_lightning
from unigap.report.gap_table import print_comparison, print_gap
from unigap.report.run_folder.continued import check_same_recipe, length_is_fixed, length_options
from unigap.report.run_folder.findings import no_external
from unigap.report.run_folder.metrics_csv import MetricsCSV
from unigap.report.run_folder.places import find_run, place_run, refuse_other_run
from unigap.report.run_folder.wandb_runs import arrange_runs
from unigap.stages import ImproveStage
from unigap.world import import_worlds

SCHEDULE = "model.init_args.schedule"
PLACES = {f"regrow.{name}": f"{SCHEDULE}.{name}" for name in ("every_n_epochs", "at_epochs", "patience", "redraw")}
PLACES |= {name: f"model.init_args.{name}" for name in ("lr", "warmup_steps", "lr_schedule")}
"""Places of options that earlier versions had elsewhere, or that belong to the stage and not to a part of it."""
RUN = """Folder of the run, for its pool, checkpoints, results, curves and logs; other options can move each of them."""
SUBCOMMANDS = ("fit", "validate", "predict")
RESUME = """Continue the run whose checkpoint is in the run folder: "must" fails without one, "auto" begins a new run
without one, "never" begins a new run and refuses to overwrite another (a job that SLURM requeued continues). A
continued run keeps its recipe; docs/reliability.md lists the settings that may change."""


class RunParser(ClearParser, LightningArgumentParser):
    """Lightning's parser, with hints in errors."""

    def _hint(self, name: str) -> str:
        return f"; did you mean {PLACES[name]}, its place?" if name in PLACES else super()._hint(name)


class UnigapCLI(LightningCLI):
    """LightningCLI with options for the callbacks of every run, in which options win over checkpoints.

    Args:
        named: The words of the command that the report names.
        take: Called with the summary of a finished run, in place of printing its figures and the last lines.
        args: As in ``LightningCLI``.
        options: As in ``LightningCLI``.
    """

    def __init__(
        self, *args: Any, named: Sequence[str], take: Callable[[RunSummary], None] | None, **options: Any
    ) -> None:
        self.named, self.take = named, take
        super().__init__(*args, **options)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the options of every run in addition to model, data and trainer."""
        # before Regrow: they record the rows that an epoch trained on, not those of the next
        parser.add_lightning_class_args(CurveLog, "curves")
        parser.add_lightning_class_args(RowLog, "rows")
        parser.add_lightning_class_args(Regrow, "regrow")
        parser.add_lightning_class_args(RunCheckpoint, "checkpoint")
        parser.add_lightning_class_args(RunSummary, "summary")
        parser.add_argument("--run", type=str | None, default=None, help=RUN)
        parser.add_argument("--resume", type=Literal["auto", "must", "never"], default="never", help=RESUME)
        parser.add_argument("--gap_out", type=str, default="", help="JSON file for the figures of ``validate``.")

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Return the verbs, each with the arguments of its Trainer method that are no options."""
        known = LightningCLI.subcommands()
        return {name: known[name] for name in SUBCOMMANDS} | {"predict": known["predict"] | {"return_predictions"}}

    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **options: Any) -> LightningArgumentParser:
        # the options of the other verbs take a fifth of a second to collect, and nothing reads them
        if subcommand != sys.argv[1]:
            return self.init_parser(**options)
        parser = super()._prepare_subcommand_parser(klass, subcommand, **options)
        if subcommand == "validate":
            parser.set_defaults({"verbose": False})  # after_validate prints the same figures, with their intervals
        return parser

    def _parse_ckpt_path(self) -> None:
        # hyperparameters saved in a checkpoint would silently override the command line (Lightning PL #21455)
        return

    def before_instantiate_classes(self) -> None:
        """Find the checkpoint to continue from, refuse one that cannot be continued, and name the group of a W&B run.

        Without these checks, Lightning would silently start a new run, or end in a traceback.
        """
        config = self.config[self.subcommand]
        if config["trainer"]["enable_progress_bar"] is False:
            tasks.hide()
        check_run_options(config)
        if config.get("gap_out"):
            check_figures(config["gap_out"], "--gap_out")
        place_run(config, find_run(str(self.subcommand), config))
        self._drop_listed_callbacks(config)
        if self.subcommand == "fit":
            is_named = bool(config["ckpt_path"])
            config["ckpt_path"] = checkpoint_to_resume(
                config["resume"], config["ckpt_path"], Path(config["checkpoint"]["folder"]) / LAST
            )
            refuse_other_run(config, config["resume"])
        self.recipe = self._plain(config)
        if config.get("ckpt_path"):
            content = open_lightning(config["ckpt_path"], "ckpt_path")
            if self.subcommand == "fit":
                check_continues(content, self.recipe, config["ckpt_path"])
                message = finished(content, self.recipe, config["ckpt_path"])
                if message:
                    raise (ValueError if config["resume"] == "must" or is_named else Finished)(message)
        # the file may be replaced before Lightning reads it: never unpickle it
        config["weights_only"] = True
        arrange_runs(config)
        # Lightning takes the hyperparameters of checkpoints from here, and makes it itself if it is missing
        self.config_dump = self._plain(config, skip_link_targets=False, skip_unset=False)

    def _plain(self, config: Namespace, **options: bool) -> Any:
        """Return a config as dicts, lists and scalars."""
        # valid as parsed: checking it again would add a tenth to the start of a run
        return yaml.safe_load(self._parser(self.subcommand).dump(config, skip_validation=True, **options))

    def _instantiate_trainer(self, config: dict[str, Any], callbacks: list[Callback]) -> Trainer:
        """Add `RunProgress` unless another progress bar is listed or bars are off; first, so that it ends an epoch."""
        own = config["callbacks"] or []
        listed = any(isinstance(callback, ProgressBar) for callback in (own if isinstance(own, list) else [own]))
        if not listed and config["enable_progress_bar"] is not False and not config["barebones"]:
            callbacks = [RunProgress(), *callbacks]
        return super()._instantiate_trainer(config, callbacks)

    def before_fit(self) -> None:
        """Store the recipe in checkpoints, which a continued run is checked against, and the command in the summary."""
        checkpoint = run_checkpoint(self.trainer)
        assert checkpoint is not None, "every run of the command line has one"
        checkpoint.recipe = self.recipe
        for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, RunSummary):
                callback.command = self.named

    def _drop_listed_callbacks(self, config: Namespace) -> None:
        """Drop the default ``CurveLog`` or ``RowLog`` if ``trainer.callbacks`` lists one."""
        callbacks = config["trainer"]["callbacks"] or []
        specs = callbacks if isinstance(callbacks, list) else [callbacks]
        listed = {spec["class_path"].rpartition(".")[2] for spec in specs}
        defaults = self._parser(self.subcommand).callback_keys
        for key, name in (("curves", "CurveLog"), ("rows", "RowLog")):
            if name in listed:
                defaults.remove(key)

    def predict(self, **options: Any) -> None:
        """Sample and judge candidates into the pool; return no predictions."""
        callbacks: list[Callback] = self.trainer.callbacks  # type: ignore[attr-defined]
        if not any(isinstance(callback, PoolWriter) for callback in callbacks):
            callbacks.append(PoolWriter())
        self.trainer.predict(**options, return_predictions=False)

    def after_predict(self) -> None:
        """Print where the pool is."""
        if self.trainer.is_global_zero:
            close_predict(self.config[self.subcommand])

    def after_fit(self) -> None:
        """Print the figures before and after training, what was made, and the command that shows more."""
        if not self.trainer.is_global_zero:
            return
        callbacks: list[Callback] = self.trainer.callbacks  # type: ignore[attr-defined]
        summaries = [callback for callback in callbacks if isinstance(callback, RunSummary) and callback.result]
        if self.take:
            for summary in summaries:
                self.take(summary)
            return
        for summary in summaries:
            print_comparison(summary.result)
            print()
        if isinstance(self.model, ImproveStage) and self.model.external is None and not summaries:
            print(no_external("--model.init_args.external"))
        close_fit(self.config[self.subcommand], bool(summaries), isinstance(self.model, ImproveStage))

    def after_validate(self) -> None:
        """Print the gap; write it as JSON if ``--gap_out`` names a file."""
        if not isinstance(self.model, ImproveStage) or not self.trainer.is_global_zero:
            return
        out = self.config[self.subcommand]["gap_out"]
        if out:  # before printing, so that a closed pipe loses nothing
            rows = {name: {g: e.to_dict() for g, e in groups.items()} for name, groups in self.model.results.items()}
            write_figures(out, rows)
        print_gap(self.model.results)
        close_validate(self.config[self.subcommand])


def checkpoint_to_resume(resume: str, named: str | None, last: Path) -> str | None:
    """Return the path of the checkpoint that a run continues from; None for a new run.

    Args:
        resume: ``auto``, ``must`` or ``never``.
        named: Value of ``--ckpt_path``.
        last: Path of the last checkpoint of an earlier run, which may not exist.

    Raises:
        ValueError: ``must`` finds no checkpoint, a new run would overwrite one, or both options name one.
    """
    if resume == "never" and not named and last.exists() and is_requeued():
        return str(last)
    if named:
        if resume != "never":
            raise ValueError(f"--ckpt_path {named!r} and --resume {resume} both name a checkpoint; give one of them")
        return named
    if last.exists():
        if resume == "never":
            raise ValueError(f"{last} is of an earlier run; continue it with --resume must, or use another folder")
        return str(last)
    if resume == "must":
        raise ValueError(f"--resume must: there is no {last}; give the --run of the run, or begin anew")
    return None


def check_continues(content: Mapping[str, Any], recipe: Mapping[str, Any], path: str) -> None:
    """Check that a run can continue from a checkpoint.

    Args:
        content: Content of the checkpoint.
        recipe: Resolved config of the continued run.
        path: Path of the checkpoint, for messages.

    Raises:
        ValueError: The checkpoint lacks a part of the run, its recipe differs, or its pool is missing.
    """
    data = recipe["data"]["class_path"].rpartition(".")[2]
    state = (content.get("callbacks") or {}).get(RunCheckpoint.__name__) or {}
    parts = {"callbacks": state.get("recipe"), "the data": content.get(data), "the loop": content.get("loops")}
    parts["the optimizer"] = content.get("optimizer_states")
    missing = next((part for part, there in parts.items() if not there), None)
    if missing:
        raise ValueError(
            f"{path} holds no state of {missing}, so no run continues from it; begin a new stage with "
            f"--model.init_args.init_from {path}"
        )
    check_same_recipe(state["recipe"], recipe, path)
    pool = recipe["data"]["init_args"].get("pool")
    if pool and content[data].get("rounds") and not (Path(pool) / POOL_FILE).is_file():
        raise ValueError(
            f"--data.pool {pool!r} is no pool, and {path} was trained on one; restore it, or name its folder"
        )


def finished(content: Mapping[str, Any], recipe: Mapping[str, Any], path: str) -> str:
    """Return a message that a run is finished and what to do, given its checkpoint; empty if it is not finished."""
    state = content["callbacks"][RunCheckpoint.__name__]
    if state["phase"] != Phase.DONE or length_options(state["recipe"]) != length_options(recipe):
        return ""
    folder = recipe["summary"]["folder"]
    shown = command("report", folder) if folder else command("gap", "--checkpoint", path)
    longer = "" if length_is_fixed(recipe) else "raise --trainer.max_epochs to train on, or "
    return (
        f"{path} is of a run that is finished ({content['global_step']} steps): see {shown}; "
        f"{longer}begin another run in other folders"
    )


class Finished(Exception):
    """Raised by ``--resume auto`` if the run is finished."""


@quiet_libraries()
def run(
    words: Sequence[str],
    named: Sequence[str] | None = None,
    take: Callable[[RunSummary], None] | None = None,
) -> int:
    """Run ``unigap fit|validate|predict ...``; return the exit status.

    Args:
        words: The words of the command.
        named: The words of the command that the report names; null is ``words``.
        take: Called with the summary of a finished run, in place of printing its figures and the last lines.
    """
    options: dict[str, Any] = {"exit_on_error": False, "allow_abbrev": False}
    # LightningCLI warns about args that differ from sys.argv; ddp starts the other processes by sys.argv[0]
    argv, sys.argv = sys.argv, [sys.argv[0], *words]
    read_yaml_strictly()
    import_worlds()
    try:
        UnigapCLI(
            LightningModule,
            LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            auto_configure_optimizers=False,
            save_config_callback=RunConfig,
            save_config_kwargs={"save_to_log_dir": False},
            parser_class=RunParser,
            parser_kwargs={"prog": "unigap", **options, **{name: options for name in SUBCOMMANDS}},
            # the data module splits the work among processes itself
            trainer_defaults={
                "num_sanity_val_steps": 0,
                "use_distributed_sampler": False,
                # the pool may have grown
                "reload_dataloaders_every_n_epochs": 1,
                "logger": {"class_path": f"{MetricsCSV.__module__}.MetricsCSV", "init_args": {"save_dir": ""}},
            },
            seed_everything_default=0,
            named=named or words,
            take=take,
        )
    except Finished as message:
        print(message)
    finally:
        sys.argv = argv
    return 0
