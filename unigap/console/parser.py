"""The parser of every verb: options override configs, configs are plain files, unknown options get a hint."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

from unigap.console.mistakes import HINTED, hint
from unigap.console.shipped_configs import resolve_config
from unigap.files.outside import refuse_special

UNKNOWN = (
    re.compile(r"Group '(?P<group>[\w.]+)' does not accept option '(?P<name>[\w.]+)'"),
    re.compile(r"[Oo]ption '(?P<name>[\w.]+)'(?: is not accepted)?"),
    re.compile(r"unrecognized arguments: --(?P<name>[\w.]+).*"),
    re.compile(r"invalid choice: '(?P<name>\w+)'.*"),
)
CONFIG = re.compile("^(Problems parsing config: |Unexpected config: .*)", re.DOTALL)


MAX_CONFIG = 2**20
"""Maximum size of a config in bytes."""
CONFIG_OPTIONS = ("--config", "-c")


class ClearParser(ArgumentParser):
    """A jsonargparse parser whose errors name the config file and the closest option."""

    def parse_args(self, *args: Any, **kwargs: Any) -> Any:
        """Parse the words of a command; options override every ``--config``, in any order.

        Raises:
            ValueError: A word names a pipe, a socket or a device, or ``--out`` is empty.
        """
        given, *others = args or (None,)
        words = list(sys.argv[1:] if given is None else given)
        _check_words(words)
        return super().parse_args(_configs_first(words), *others, **kwargs)

    def parse_path(self, path: Any, *args: Any, **kwargs: Any) -> Any:
        """Read a config file.

        Raises:
            ValueError: It is not UTF-8, no mapping, or ambiguous YAML; the message names the file.
        """
        try:
            refuse_special(Path(str(path)).expanduser(), f"config {str(path)!r}", "a YAML file", MAX_CONFIG)
            return super().parse_path(path, *args, **kwargs)
        except UnicodeDecodeError as error:
            raise ValueError(f"config {str(path)!r}: not UTF-8 at byte {error.start}; save it as UTF-8") from error
        except argparse.ArgumentError as error:
            prefix = CONFIG.match(error.message)
            if prefix is None:
                raise
            reason = error.message[prefix.end() :] or "holds no options; write them as 'name: value'"
            raise ValueError(f"config {str(path)!r}: {reason}") from error

    def error(self, message: str, ex: Exception | None = None) -> Any:
        """End parsing; the message about an unknown option hints at existing ones."""
        for pattern in () if HINTED.search(message) else UNKNOWN:
            found = pattern.search(message)
            if found:
                parts = found.groupdict()
                name = f"{parts['group']}.{parts['name']}" if "group" in parts else parts["name"]
                message = message[: found.end()] + self._hint(name) + message[found.end() :]
                break
        super().error(message, ex)

    def _hint(self, name: str) -> str:
        known = self._known()
        blocks = {other.partition(".")[0] for other in known}
        block = name.partition(".")[0]
        return hint(name, known) if block in blocks or block == name else hint(block, blocks)

    def _known(self) -> list[str]:
        """Return every option, including those of subcommands, but not those that print help."""
        known = [action.dest for action in self._actions if action.option_strings]
        known = [name for name in known if name != "print_shtab" and name.rpartition(".")[2] != "help"]
        for action in self._actions:
            choices = getattr(action, "_name_parser_map", {})
            known += choices
            known += [name for parser in choices.values() for name in parser._known()]
        return known


class VerbParser(ClearParser):
    """The parser of a verb without configs: a switch such as ``--blind`` alone means ``--blind true``."""

    def parse_args(self, *args: Any, **kwargs: Any) -> Any:
        """Parse the words of a command."""
        for action in self._actions:
            if isinstance(action.default, bool):
                action.nargs, action.const = "?", True
        return super().parse_args(*args, **kwargs)


def _configs_first(words: Sequence[str]) -> list[str]:
    """Return the words with every config moved before the first option, so that options override configs.

    The name of a shipped config becomes its path.

    >>> _configs_first(["fit", "--seed", "1", "--config", "{}", "--config={a: 1}"])
    ['fit', '--config', '{}', '--config={a: 1}', '--seed', '1']
    """
    configs: list[str] = []
    others: list[str] = []
    remaining = iter(words)
    for word in remaining:
        if word in CONFIG_OPTIONS:
            configs += [word, *([resolve_config(value)] if (value := next(remaining, None)) is not None else [])]
        elif word.startswith("--config="):
            configs.append(f"--config={resolve_config(word.removeprefix('--config='))}")
        else:
            others.append(word)
    first = next((index for index, word in enumerate(others) if word.startswith("-")), len(others))
    return [*others[:first], *configs, *others[first:]]


def _check_words(words: Sequence[str]) -> None:
    for option, word in pairwise(["", *words]):
        name, equals, value = word.partition("=")
        if (equals and name == "--out" and not value) or (option == "--out" and not word):
            raise ValueError("--out '' names no file; give a name or leave the option out")
        refuse_special(value if equals and name.startswith("--") else word, repr(word[:80]), "a plain file")
