"""The plain verbs: a table of functions whose signatures are their options."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any

from jsonargparse import auto_cli

from unigap.console import tasks
from unigap.console.parser import VerbParser
from unigap.world import import_worlds

COMMANDS: dict[str, str | dict[str, str]] = {
    "configs": {"list": "configs", "show": "configs", "copy": "configs"},
    "draw": "draw",
    "bench": "bench",
    "gap": "gap",
    "calibrate": "calibrate",
    "report": "report",
    "check": "check",
    "inspect": "inspect",
    "judge": {
        "ask": "judge_ask",
        "export": "judge",
        "page": "judge_page",
        "import": "judge",
        "agreement": "agreement",
        "scales": "judge_scales",
    },
    "pool": {"import": "pool_import", "verify": "pool_verify"},
    "prompts": {"import": "prompts", "audit": "prompts"},
    "score": {"geneval": "score", "compbench": "score", "dsg": "score", "tifa": "score", "wise": "score"},
    "export": {"pool": "export_pool", "model": "export_model"},
    "push": {"pool": "push", "model": "push"},
}
"""Modules of ``unigap.cli.commands`` by verb; each holds a function named after the verb, e.g. ``judge_export``."""
ALONE = {"configs": "list"}
"""Second words that a verb of two words has when it is given alone."""
TAKE_CLASSES = ("draw", "bench", "pool", "check", "gap", "calibrate", "judge", "export")
"""Verbs with options that name a class; worlds add classes to choose from."""


def functions_of(verb: str) -> Callable[..., None] | dict[str, Callable[..., None]]:
    """Import and return the function of a verb; for a verb of two words, its functions by second word."""
    command = COMMANDS[verb]
    if isinstance(command, str):
        return _function(command, verb)
    return {second: _function(module, f"{verb}_{second}") for second, module in command.items()}


def _function(module: str, name: str) -> Callable[..., None]:
    found: Callable[..., None] = getattr(import_module(f"unigap.cli.commands.{module}"), name)
    return found


def run(words: Sequence[str]) -> int:
    """Run a plain verb with its options; return the exit status."""
    verb = words[0]
    if verb in ALONE and (len(words) == 1 or (words[1].startswith("-") and words[1] not in ("-h", "--help"))):
        words = [verb, ALONE[verb], *words[1:]]
    with tasks.starting():
        functions = {verb: functions_of(verb)}
        if verb in TAKE_CLASSES:
            import_worlds()
    return run_function(functions, words, "unigap")


def run_function(functions: Mapping[str, Any], words: Sequence[str], prog: str) -> int:
    """Call the function that the first word names, with the other words as its options.

    Args:
        functions: Functions by name; a mapping of them is a verb of two words.
        words: The words of the command line.
        prog: Name of the program in its help.

    Returns:
        The exit status.
    """
    options: dict[str, Any] = {"exit_on_error": False, "allow_abbrev": False}
    auto_cli(dict(functions), args=list(words), as_positional=True, parser_class=VerbParser, prog=prog, **options)
    return 0
