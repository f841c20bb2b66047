"""Read JSON as dataclasses, strictly; an error says in one line which value is wrong.

jsonargparse would also accept ``"1"`` for a number, and pydantic would add 0.3 s to the start of every command.
"""

from __future__ import annotations

import json
import math
import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from unigap.files.seals import read_sealed

NanIfNull = Annotated[float, "nan if null"]
"""A number that JSON holds as null when it is nan."""
NAMES = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}


def build(kind: Any, data: Any, where: str) -> Any:
    """Check JSON data against a type and convert them to it.

    Args:
        kind: A dataclass, ``X | None``, ``dict[str, X]``, ``list[X]``, ``NanIfNull``, ``Any`` or a plain type.
        data: Result of ``json.loads``.
        where: Path of the data, for messages.

    Returns:
        The data as ``kind``.

    Raises:
        ValueError: The data do not match the type; the message says where.
    """
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any or (origin is types.UnionType and data is None):
        return data
    if kind == NanIfNull:
        return math.nan if data is None else build(float, data, where)
    if origin is types.UnionType:
        return build(arguments[0], data, where)
    if origin is list:
        items = expect(list, data, where, "a list")
        return [build(arguments[0], item, f"{where}[{index}]") for index, item in enumerate(items)]
    if is_dataclass(kind) or origin is dict:
        table = expect(dict, data, where, "an object")
        if origin is dict:
            return {key: build(arguments[1], value, f"{where}.{key}") for key, value in table.items()}
        return build_record(kind, table, where)
    if kind is float and type(data) is int:
        return float(data)
    if type(data) is not kind:
        raise ValueError(f"{where} must be {NAMES[kind]}, got {json.dumps(data)[:60]}; write the run again")
    return data


def build_record(kind: Any, table: Mapping[str, Any], where: str) -> Any:
    """Build a dataclass from a JSON object, see `build`."""
    values, hints = {}, get_type_hints(kind, include_extras=True)
    for item in fields(kind):
        if item.name in table:
            values[item.name] = build(hints[item.name], table[item.name], f"{where}.{item.name}")
        elif item.default is MISSING and item.default_factory is MISSING:
            raise ValueError(f"{where} lacks {item.name!r}; the file is damaged or of an unfinished run: run it again")
    try:
        return kind(**values)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def expect(kind: type, data: Any, where: str, name: str) -> Any:
    """Return ``data`` if it is an instance of ``kind``, else raise ValueError."""
    if not isinstance(data, kind):
        raise ValueError(f"{where} must be {name}, got {json.dumps(data)[:60]}; write the run again")
    return data


def read_json(path: Path, kind: Any) -> Any:
    """Read a JSON file as a type, see `build`.

    Raises:
        ValueError: It is missing, does not match its seal, is not JSON, or does not match the type.
    """
    try:
        raw = read_sealed(path)
    except FileNotFoundError:
        raise ValueError(f"{path} is missing; give the folder of a finished run") from None
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from None
    try:
        data = json.loads(raw, parse_constant=lambda _: None)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged, not JSON ({error}); run it again") from None
    return build(kind, data, str(path))
