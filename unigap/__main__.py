"""The command line: run a verb; report a user mistake in one line with exit status 2."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Sequence

from unigap import __version__
from unigap.console import tasks
from unigap.console.mistakes import hint, is_lost_process, one_line
from unigap.console.outlet import outlive_reader
from unigap.console.stop_signal import Stopped

VERBS = {
    "demo": ("unigap.cli.commands.demo", "watch the gap close on the embedded world, a few minutes on a CPU"),
    "fit": ("unigap.cli.lightning_verbs", "train a stage: --config configs/shapes/sft.yaml"),
    "configs": ("unigap.cli.verbs", "configs show|copy NAME: the configs that come with the package; alone, list them"),
    "validate": ("unigap.cli.lightning_verbs", "measure the gap of a stage's model on held-out prompts"),
    "predict": ("unigap.cli.lightning_verbs", "sample and judge candidates into a pool"),
    "draw": ("unigap.cli.verbs", "draw 'a red circle' --n 16 --keep 2: sample images, judge them, keep the best"),
    "bench": ("unigap.cli.verbs", "draw, measure and score a published benchmark: bench geneval geneval:FILE"),
    "gap": ("unigap.cli.verbs", "measure the gap of a checkpoint"),
    "calibrate": ("unigap.cli.verbs", "find the threshold at which a judge reaches a given precision"),
    "report": ("unigap.cli.verbs", "write the HTML report of a run folder"),
    "compare": ("unigap.cli.commands.compare", "compare RUN RUN...: runs side by side, in a table and on a page"),
    "check": ("unigap.cli.verbs", "check that a model keeps the promises of the protocol"),
    "inspect": ("unigap.cli.verbs", "list the classes a config or folder would import and where it would write"),
    "judge": (
        "unigap.cli.verbs",
        "judge ask|export|page|import|agreement|scales POOL: ask a further judge or people, compare judges",
    ),
    "pool": ("unigap.cli.verbs", "pool import|verify: train on images of your own, check every file of a pool"),
    "prompts": ("unigap.cli.verbs", "prompts import|audit: list a prompt set, find training prompts in the test set"),
    "score": ("unigap.cli.verbs", "score geneval|compbench|dsg|tifa|wise: benchmark scores from detections or answers"),
    "export": ("unigap.cli.verbs", "export pool|model: a folder for the Hugging Face hub, with its card"),
    "push": ("unigap.cli.verbs", "push pool|model FOLDER REPO: upload an export to the Hugging Face hub"),
}
HELP = "usage: unigap VERB [options]\n\n" + "".join(f"  {verb:<10} {text}\n" for verb, (_, text) in VERBS.items())
HELP += "\nunigap VERB --help lists the options of a verb; --debug shows the traceback of an error.\n"
HELP += "unigap --print_completion bash|zsh prints a script for shell completion.\n"
EXPECTED = ("ArgumentError", "MisconfigurationException", "ModuleNotFoundError", "UnpicklingError", "UsageError")
"""Library errors caused by user mistakes. By name, because importing the classes takes seconds."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: The words after ``unigap``; None takes those of the process.

    Returns:
        The exit status: 0, 2 after a user mistake, or as ``answer`` says.
    """
    if argv is None:
        outlive_reader()
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    if not words or words[0] in ("-h", "--help"):
        print(HELP, end="")
        return 0
    if words[0] == "--version":
        print(f"unigap {__version__}")
        return 0
    if words[0] == "--print_completion":
        return _print_completion(words[1:])
    if words[0] not in VERBS:
        return _fail(f"unknown verb {words[0]!r}{hint(words[0], VERBS)}")
    return answer(words, _run, debug)


def answer(words: Sequence[str], run: Callable[[Sequence[str]], int], debug: bool = False) -> int:
    """Run a command; report a user mistake in one line.

    Args:
        words: The words of the command.
        run: Function that runs it and returns the exit status.
        debug: Raise errors, for their tracebacks.

    Returns:
        The exit status: 0; 2 after a user mistake; 1 if another process of the run ended; 128 plus the signal's number
        if a signal stopped the command.
    """
    # without this, W&B waits for an API key or the network; a sweep has both
    if "WANDB_SWEEP_ID" not in os.environ:
        os.environ.setdefault("WANDB_MODE", "offline")
    if os.environ.get("WANDB_MODE") == "offline":
        os.environ.setdefault("WANDB_QUIET", "true")
    if debug:
        return _run_shown(words, run)
    try:
        return _run_shown(words, run)
    except KeyboardInterrupt:
        return _fail("interrupted", status=130)
    except Stopped as stopped:
        return _fail(f"stopped by {stopped.name}; nothing is lost, {stopped.remedy}", status=stopped.code)
    except (ValueError, OSError, TypeError, LookupError) as error:
        return _fail(one_line(error))
    except Exception as error:
        if is_lost_process(error):
            return _fail("another process of this run ended; see why, then continue with --resume must", status=1)
        if type(error).__name__ not in EXPECTED:
            raise
        return _fail(one_line(error))


def _run_shown(words: Sequence[str], run: Callable[[Sequence[str]], int]) -> int:
    with tasks.shown():
        return run(words)


def _run(words: Sequence[str]) -> int:
    with tasks.starting():
        runner: Callable[[Sequence[str]], int] = importlib.import_module(VERBS[words[0]][0]).run
    failed = True
    try:
        status = runner(words)
        failed = False
    finally:
        if "wandb" in sys.modules:
            importlib.import_module("unigap.report.run_folder.wandb_runs").finish_run(failed)
    return status


def _print_completion(shells: Sequence[str]) -> int:
    from unigap.cli.verbs import COMMANDS
    from unigap.console.completion import completion

    groups = {verb: list(command) for verb, command in COMMANDS.items() if isinstance(command, dict)}
    try:
        print(completion(" ".join(shells), VERBS, groups, main), end="")
    except ValueError as error:
        return _fail(one_line(error))
    return 0


def _fail(message: str, status: int = 2) -> int:
    print(f"error: {message}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
