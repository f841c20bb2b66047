"""``unigap demo``: measure the gap, self-improve with replay, measure again, on the embedded world in minutes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from unigap.callbacks import RunSummary
from unigap.cli import lightning_verbs
from unigap.cli.commands.demo_control import in_words, recall_control
from unigap.cli.commands.demo_folder import CONTROL, MARK, check_demo_folder, empty_demo_folder
from unigap.cli.commands.model_choice import DEFAULT, ModelChoice, build_model, name_of, spec_of_checkpoint
from unigap.console.closing import close
from unigap.console.parser import VerbParser
from unigap.console.stop_signal import Stopped
from unigap.files.durable import write_durable
from unigap.files.seals import write_sealed
from unigap.files.typed_json import build
from unigap.models.base import UnifiedModel
from unigap.report.gap_table import folded, print_comparison
from unigap.report.pages.report import write_report
from unigap.report.run_folder.contents import Summary
from unigap.stages.earlier_stage import load_stage
from unigap.world import import_worlds

CONFIG = Path(__file__).with_name("demo.yaml")
"""The config of the run."""
PLANS = ("regrow.plan", "model.init_args.eval_plan", "summary.plan")
"""The sampling plans of a run: training, validation and test images."""
WANDB = {"class_path": "WandbLogger", "init_args": {"offline": True, "group": "demo"}}


@dataclass(frozen=True)
class Start:
    """The model that a demo begins with.

    Attributes:
        name: Its name for messages and the report.
        spec: Its class path and arguments.
        init_from: Lightning checkpoint with its weights; empty if ``spec`` loads them.
        cfg: Guidance scale of all images.
    """

    name: str
    spec: Mapping[str, Any]
    init_from: str
    cfg: float

    def load(self) -> UnifiedModel:
        """Return the model."""
        model = build_model(self.spec)
        if self.init_from:
            load_stage(model, self.init_from)
        return model


def start_of(checkpoint: str | None, model: Mapping[str, Any] | None = None) -> Start:
    """Load the initial model once, to check it and to read its usual guidance scale.

    Args:
        checkpoint: A shipped model, a folder, a hub id, or a run of ``unigap fit``; None is the default.
        model: Class path and arguments of a model, instead of ``checkpoint``.

    Raises:
        ValueError: Both are given, or the model does not load.
    """
    if model is not None and checkpoint is not None:
        raise ValueError("--model and --checkpoint both name a model; give one of them")
    if model is not None:
        return Start(name_of(model), model, "", build_model(model).usual_cfg)
    name = checkpoint or DEFAULT
    return Start(name, *spec_of_checkpoint(name), ModelChoice(name).load().usual_cfg)


def run_demo(
    start: Start, folder: Path, seed: int, overrides: Mapping[str, Any], command: Sequence[str] = ("demo",)
) -> dict[str, Any]:
    """Train through ``unigap fit`` with ``demo.yaml``; write the files of the run, and return its summary.

    Args:
        start: The initial model.
        folder: The run folder.
        seed: Seed of all random numbers.
        overrides: Options of ``unigap fit`` by their full name, with plain JSON values.
        command: The words of the command that the report names.

    Raises:
        ValueError: An option is wrong.
        Stopped: A signal ended the run.
    """
    about = {"checkpoint": start.name, "seed": seed, "cfg": start.cfg}
    write_durable(folder / MARK, json.dumps(about, indent=1).encode())
    options = {"model.init_args.model": dict(start.spec), "seed_everything": seed}
    options |= {f"{plan}.sampling.cfg": start.cfg for plan in PLANS}
    if start.init_from:
        options["model.init_args.init_from"] = start.init_from
    words = ["fit", "--config", str(CONFIG), "--run", str(folder)]
    words += [f"--{name}={json.dumps(value)}" for name, value in (options | dict(overrides)).items()]
    summaries: list[RunSummary] = []
    try:
        lightning_verbs.run(words, command, summaries.append)
    except Stopped as stopped:
        raise Stopped(stopped.number, "--overwrite begins the demo again") from None
    (summary,) = summaries
    return summary.result


def demo(
    out: str = "runs/demo",
    seed: int = 0,
    checkpoint: str | None = None,
    logger: Literal["csv", "wandb"] = "csv",
    overwrite: bool = False,
    *,
    model: Mapping[str, Any] | None = None,
    command: Sequence[str] = ("demo",),
) -> None:
    """Watch the gap close on the embedded world, with a control: a few minutes on two CPU cores.

    Args:
        out: Folder of the run: report, summary, pool and checkpoint.
        seed: Seed of all random numbers, in [0, 2 ** 32).
        checkpoint: ``shapes`` (the default) or another shipped model, a folder, or a run of ``unigap fit``.
        logger: Logger of the curves: ``csv``, or ``wandb`` in offline mode (``wandb sync`` uploads it).
        overwrite: Replace an earlier demo in ``out``.
        model: A model of your own by its class path, instead of ``checkpoint``.
        command: The words of the command that the report names.
    """
    if not 0 <= seed < 2**32:
        raise ValueError(f"--seed must be in [0, 2 ** 32), got {seed}")
    folder = check_demo_folder(out, overwrite)
    start = start_of(checkpoint, model)  # before an earlier demo is removed
    empty_demo_folder(folder)
    summary = run_demo(start, folder, seed, {"trainer.logger": WANDB} if logger == "wandb" else {}, command)
    page = write_report(out)
    found = recall_control(start.load(), build(Summary, summary, "summary"), seed)
    write_sealed(folder / CONTROL, json.dumps(found, indent=1).encode())
    print_comparison(summary)
    print(*folded([in_words(found)]), "", sep="\n")
    close({"report": page}, f"open {page} in a browser")


def run(words: Sequence[str]) -> int:
    """Run ``unigap demo`` with its options; return the exit status."""
    import_worlds()
    about = (demo.__doc__ or "").partition("\n")[0]
    # not in the table of plain verbs: the config of the run needs the class path of the model, not the model
    parser = VerbParser(prog="unigap demo", description=about, exit_on_error=False, allow_abbrev=False)
    parser.add_argument("--config", action="config", help="Path to a configuration file.")
    parser.add_function_arguments(demo, as_group=False, skip={"model", "command"})
    own = "A model of your own by its class path, instead of ``checkpoint``."
    parser.add_subclass_arguments(UnifiedModel, "model", as_group=False, instantiate=False, help=own)
    options = parser.parse_args(list(words[1:])).as_dict()
    del options["config"]
    demo(**options, command=words)
    return 0
