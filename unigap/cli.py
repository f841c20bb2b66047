"""``fit``, ``validate`` and ``predict``: LightningCLI, with the rules that keep self-improvement runs right."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningDataModule, LightningModule
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from unigap.callbacks import PoolWriter, Regrow
from unigap.gap_table import print_gap
from unigap.manifest import write_durable
from unigap.models.checkpoints import open_lightning
from unigap.quiet import quiet_libraries
from unigap.stages import ImproveStage

SUBCOMMANDS = ("fit", "validate", "predict")


class UnigapCLI(LightningCLI):
    """LightningCLI in which the command line wins and ``Regrow`` has a path of its own, ``--regrow``."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds what every run has beside model, data and trainer."""
        parser.add_lightning_class_args(Regrow, "regrow")
        parser.add_argument("--gap_out", type=str, default="", help="JSON file for the figures of ``validate``.")

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """The Lightning verbs unigap offers, each with the arguments that are no options of it."""
        known = LightningCLI.subcommands()
        return {name: known[name] for name in SUBCOMMANDS} | {"predict": known["predict"] | {"return_predictions"}}

    def _parse_ckpt_path(self) -> None:
        # hyperparameters saved in a checkpoint would silently beat the command line (Lightning PL #21455)
        return

    def before_instantiate_classes(self) -> None:
        """Refuses a checkpoint that cannot be resumed: Lightning would start anew without a word, or end in a trace."""
        path = self.config[self.subcommand].get("ckpt_path")
        if path:
            open_lightning(path, "ckpt_path")

    def predict(self, **options: Any) -> None:
        """Draws and judges into the pool, and keeps nothing beside it."""
        callbacks: list[Callback] = self.trainer.callbacks  # type: ignore[attr-defined]
        if not any(isinstance(callback, PoolWriter) for callback in callbacks):
            callbacks.append(PoolWriter())
        self.trainer.predict(**options, return_predictions=False)

    def after_validate(self) -> None:
        """Prints the gap, and writes it where asked."""
        if not isinstance(self.model, ImproveStage) or not self.trainer.is_global_zero:
            return
        print_gap(self.model.results)
        out = self.config[self.subcommand]["gap_out"]
        if out:
            rows = {name: {g: e.to_dict() for g, e in found.items()} for name, found in self.model.results.items()}
            write_durable(Path(out), json.dumps(rows, indent=1).encode())


@quiet_libraries()
def run(words: Sequence[str]) -> int:
    """Runs ``unigap fit|validate|predict ...``."""
    options: dict[str, Any] = {"exit_on_error": False, "allow_abbrev": False}
    argv, sys.argv = sys.argv, ["unigap", *words]  # LightningCLI warns when it is given args beside sys.argv
    try:
        UnigapCLI(
            LightningModule,
            LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            auto_configure_optimizers=False,
            save_config_kwargs={"overwrite": True},
            parser_kwargs={**options, **{name: options for name in SUBCOMMANDS}},
            trainer_defaults={"num_sanity_val_steps": 0},
            seed_everything_default=0,
        )
    finally:
        sys.argv = argv
    return 0
