"""The parser of every verb: it reads configs strictly, and tells what an unknown option may have meant."""

from __future__ import annotations

import argparse
import re
from typing import Any

from jsonargparse import ArgumentParser

from unigap.console.mistakes import HINTED, hint

UNKNOWN = (
    re.compile(r"Group '(?P<group>[\w.]+)' does not accept option '(?P<name>[\w.]+)'"),
    re.compile(r"[Oo]ption '(?P<name>[\w.]+)'(?: is not accepted)?"),
    re.compile(r"unrecognized arguments: --(?P<name>[\w.]+).*"),
    re.compile(r"invalid choice: '(?P<name>\w+)'.*"),
)
CONFIG = re.compile("^(Problems parsing config: |Unexpected config: .*)", re.DOTALL)


class ClearParser(ArgumentParser):
    """A jsonargparse parser whose errors name the config file and the nearest option there is."""

    def parse_path(self, path: Any, *args: Any, **kwargs: Any) -> Any:
        """Reads a config file.

        Raises:
            ValueError: It is not UTF-8, no mapping, or not clear; names the file.
        """
        try:
            return super().parse_path(path, *args, **kwargs)
        except UnicodeDecodeError as error:
            raise ValueError(f"config {str(path)!r}: not UTF-8 at byte {error.start}; save it as UTF-8") from error
        except argparse.ArgumentError as error:
            told = CONFIG.match(error.message)
            if told is None:
                raise
            reason = error.message[told.end() :] or "holds no options; write them as 'name: value'"
            raise ValueError(f"config {str(path)!r}: {reason}") from error

    def error(self, message: str, ex: Exception | None = None) -> Any:
        """Ends the parsing; the message of an unknown option says what else there is."""
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
        """Every option, those of the sub-commands included."""
        known = [action.dest for action in self._actions if action.option_strings and action.dest != "help"]
        for action in self._actions:
            choices = getattr(action, "_name_parser_map", {})
            known += choices
            known += [name for parser in choices.values() for name in parser._known()]
        return known
