"""The command line: picks the verb, and turns every user mistake into one line and exit status 2."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Sequence

from unigap import __version__
from unigap.mistakes import hint, is_lost_process, one_line
from unigap.stop_signal import Stopped

VERBS = {
    "demo": ("unigap.verbs", "watch the gap close on the embedded world, a few minutes on a CPU"),
    "fit": ("unigap.cli", "train a stage: --config configs/shapes/sft.yaml"),
    "validate": ("unigap.cli", "measure the gap of a stage's model on held-out prompts"),
    "predict": ("unigap.cli", "draw and judge candidates into a pool"),
    "gap": ("unigap.verbs", "measure the gap of a checkpoint"),
    "report": ("unigap.verbs", "make the HTML report of a run folder"),
    "evidence": ("unigap.verbs", "evidence TOPIC: repeat the measurements behind the documentation"),
    "pool": ("unigap.verbs", "pool verify DIR: check every file of a pool"),
}
HELP = "usage: unigap VERB [options]\n\n" + "".join(f"  {verb:<10} {text}\n" for verb, (_, text) in VERBS.items())
HELP += "\nunigap VERB --help tells the options of a verb; --debug shows the traceback of an error.\n"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        argv: The words after ``unigap``; the process's own where left out.

    Returns:
        The exit status: 0, or 2 after a user mistake.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    if not words or words[0] in ("-h", "--help"):
        print(HELP, end="")
        return 0
    if words[0] == "--version":
        print(f"unigap {__version__}")
        return 0
    if words[0] not in VERBS:
        return _fail(f"unknown verb {words[0]!r}{hint(words[0], VERBS)}")
    # W&B would wait for a key or the network otherwise
    os.environ.setdefault("WANDB_MODE", "offline")
    if debug:
        return _runner(words[0])(words)
    try:
        return _runner(words[0])(words)
    except KeyboardInterrupt:
        return _fail("interrupted", status=130)
    except Stopped as stopped:
        return _fail(f"stopped by {stopped.name}; nothing is lost, --resume auto continues", status=stopped.code)
    except (ValueError, OSError, TypeError, LookupError) as error:
        return _fail(one_line(error))
    except Exception as error:
        if is_lost_process(error):
            return _fail("another process of this run ended; see why, then continue with --resume must", status=1)
        if type(error).__name__ not in ("ArgumentError", "MisconfigurationException", "UnpicklingError"):
            raise
        return _fail(one_line(error))


def _runner(verb: str) -> Callable[[Sequence[str]], int]:
    runner: Callable[[Sequence[str]], int] = importlib.import_module(VERBS[verb][0]).run
    return runner


def _fail(message: str, status: int = 2) -> int:
    print(f"error: {message}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
