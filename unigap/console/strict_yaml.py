"""Strict YAML: refuse duplicate keys, aliases that multiply, and deep nesting."""

from __future__ import annotations

from dataclasses import dataclass

import yaml
from jsonargparse import get_loader, set_loader

from unigap.files.outside import refuse_special

MAX_VALUES = 100_000
MAX_DEPTH = 50

_LENIENT = get_loader("yaml")
_READER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class UnclearYAML(ValueError):
    """YAML that is ambiguous or grows too large."""


@dataclass
class _Open:
    """A list or mapping that is being read: its anchor, its number of values so far, and its keys so far."""

    anchor: str | None = None
    keys: set[str] | None = None
    values: int = 1
    children: int = 0


def check_yaml(text: str) -> None:
    """Check that YAML text is unambiguous and small.

    Raises:
        UnclearYAML: A key occurs twice in a mapping, aliases expand to more than ``MAX_VALUES`` values or contain
            themselves, or the nesting is deeper than ``MAX_DEPTH``.
        yaml.YAMLError: It is not YAML.
    """
    grown: dict[str, int] = {}
    stack = [_Open()]
    # read events one by one, without recursion: deep or multiplying text costs nothing yet
    for event in yaml.parse(text, Loader=_READER):
        line = event.start_mark.line + 1
        if isinstance(event, yaml.ScalarEvent):
            # jsonargparse opens what looks like a nested config, and a pipe would never answer
            refuse_special(event.value, f"line {line}: {event.value[:80]!r}", "a plain file")
            _count_key(stack[-1], event.value, line)
            _add(stack[-1], event.anchor, 1, grown)
        elif isinstance(event, yaml.AliasEvent):
            if event.anchor not in grown:
                raise UnclearYAML(f"line {line}: *{event.anchor} stands inside itself or names nothing; write it out")
            _count_key(stack[-1], None, line)
            stack[-1].values += grown[event.anchor]
        elif isinstance(event, yaml.CollectionStartEvent):
            _count_key(stack[-1], None, line)
            stack.append(_Open(event.anchor, set() if isinstance(event, yaml.MappingStartEvent) else None))
            if len(stack) > MAX_DEPTH:
                raise UnclearYAML(f"line {line}: nested deeper than {MAX_DEPTH}; flatten it")
        elif isinstance(event, yaml.CollectionEndEvent):
            closed = stack.pop()
            _add(stack[-1], closed.anchor, closed.values, grown)
        if stack[-1].values > MAX_VALUES:
            raise UnclearYAML(f"line {line}: aliases make more than {MAX_VALUES:,} values of it; write it out")


def _count_key(parent: _Open, key: str | None, line: int) -> None:
    """Count a child of a mapping, whose children alternate between key and value; ``key`` is None for no scalar."""
    if parent.keys is None:
        return
    parent.children += 1
    if parent.children % 2 and key is not None:
        if key in parent.keys:
            raise UnclearYAML(f"line {line}: the key {key!r} occurs twice; keep one")
        parent.keys.add(key)


def _add(parent: _Open, anchor: str | None, values: int, grown: dict[str, int]) -> None:
    parent.values += values
    if anchor:
        grown[anchor] = values


def read_yaml_strictly() -> None:
    """Make jsonargparse refuse every config that ``check_yaml`` refuses."""
    set_loader("yaml", _load, (yaml.YAMLError, UnclearYAML))


def _load(text: str) -> object:
    check_yaml(text)
    return _LENIENT(text)
