"""The command line: picks the verb, and turns every user mistake into one line and exit status 2."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Sequence

from unigap import __version__
from unigap.console.allocator import keep_freed_memory
from unigap.console.mistakes import hint, is_lost_process, one_line
from unigap.console.outlet import outlive_reader
from unigap.console.stop_signal import Stopped

VERBS = {
    "demo": ("unigap.cli.verbs", "watch the gap close on the embedded world, a few minutes on a CPU"),
    "fit": ("unigap.cli.lightning_verbs", "train a stage: --config configs/shapes/sft.yaml"),
    "validate": ("unigap.cli.lightning_verbs", "measure the gap of a stage's model on held-out prompts"),
    "predict": ("unigap.cli.lightning_verbs", "draw and judge candidates into a pool"),
    "gap": ("unigap.cli.verbs", "measure the gap of a checkpoint"),
    "calibrate": ("unigap.cli.verbs", "find the threshold at which a judge is as precise as you want it"),
    "report": ("unigap.cli.verbs", "make the HTML report of a run folder"),
    "compare": ("unigap.cli.commands.compare", "compare RUN RUN...: runs side by side, in a table and on a page"),
    "inspect": ("unigap.cli.verbs", "list what a config or folder would import and write, without importing it"),
    "judge": ("unigap.cli.verbs", "judge export|import|agreement POOL: collect people's verdicts, compare judges"),
    "pool": ("unigap.cli.verbs", "pool verify DIR: check every file of a pool"),
    "prompts": ("unigap.cli.verbs", "prompts import|audit: what a prompt set holds, and what of it is evaluated on"),
    "score": ("unigap.cli.verbs", "score geneval|compbench|dsg: figures of a benchmark from detections or answers"),
    "export": ("unigap.cli.verbs", "export pool|model: a folder for the Hugging Face hub, with its card"),
}
HELP = "usage: unigap VERB [options]\n\n" + "".join(f"  {verb:<10} {text}\n" for verb, (_, text) in VERBS.items())
HELP += "\nunigap VERB --help tells the options of a verb; --debug shows the traceback of an error.\n"
HELP += "unigap --print_completion bash|zsh prints what makes the shell complete them.\n"
EXPECTED = ("ArgumentError", "MisconfigurationException", "ModuleNotFoundError", "UnpicklingError", "UsageError")
"""Errors of libraries that are the user's to mend, by name: their classes are costly to import."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        argv: The words after ``unigap``; the process's own where left out.

    Returns:
        The exit status: 0, or 2 after a user mistake.
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
    """Run a command and turn every user mistake into one line and an exit status.

    Args:
        words: The words of the command.
        run: Runs it.
        debug: Let an error through, for its traceback.
    """
    # W&B would wait for a key or the network otherwise; whoever started a sweep has both
    if "WANDB_SWEEP_ID" not in os.environ:
        os.environ.setdefault("WANDB_MODE", "offline")
    if os.environ.get("WANDB_MODE") == "offline":
        os.environ.setdefault("WANDB_QUIET", "true")
    keep_freed_memory()
    if debug:
        return run(words)
    try:
        return run(words)
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


def _run(words: Sequence[str]) -> int:
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
