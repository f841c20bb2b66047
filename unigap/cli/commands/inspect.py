"""``unigap inspect``: what a config or a folder would import and where it would write, told without importing it."""

from __future__ import annotations

import json
import re
import sys
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

import yaml

from unigap.console.strict_yaml import check_yaml
from unigap.files.outside import read_outside_text

MOST_BYTES = 16 * 2**20
CONFIGS, OBJECTS, CODE = (".yaml", ".yml"), (".json",), (".py",)
PICKLES = (".ckpt", ".pt", ".pth", ".bin", ".pkl", ".pickle")
DEPTH = 3
"""Folders below the one that is inspected."""
NAMES = ("class_path", "architectures", "auto_map", "processor_class", "tokenizer_class", "image_processor_type")
"""Keys that name classes."""
WRITES = (
    "run", "folder", "pool", "out", "gap_out", "save_dir", "default_root_dir", "dirpath"
)  # fmt: skip
"""Keys that name what is written."""
IMPORT = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")


@dataclass(frozen=True)
class Finding:
    """A value in a file and the option it belongs to.

    Attributes:
        option: Dotted name, e.g. ``"model.init_args.judge"``.
        value: The value.
    """

    option: str
    value: str


def inspect_path(path: str) -> list[str]:
    """Describe a config, a Lightning checkpoint, or a folder of a run or a model.

    Nothing in it is imported, unpickled or run.

    Args:
        path: The file or folder.

    Returns:
        Lines to print.

    Raises:
        ValueError: There is nothing, or a config in it is not clear YAML or JSON.
    """
    place = Path(path)
    if not place.is_dir():
        return _inspect_file(place)
    found = [file for file in sorted(place.rglob("*")) if len(file.relative_to(place).parts) <= DEPTH]
    lines = [line for file in found if file.suffix in (*CONFIGS, *OBJECTS, *CODE, *PICKLES) and file.is_file()
             for line in _inspect_file(file, quiet=True)]  # fmt: skip
    return lines or [f"{path}: names no class, holds no code and no pickle"]


def _inspect_file(file: Path, quiet: bool = False) -> list[str]:
    if file.suffix in CODE:
        return [f"{file}: Python code; unigap does not run code of a model folder, a config can import it"]
    if file.suffix in PICKLES:
        return [f"{file}: {_describe_pickle(file)}"]
    content = _read(file)
    classes, writes = list(dict.fromkeys(_classes(content))), list(dict.fromkeys(_writes(content)))
    if not classes and not writes:
        return [] if quiet else [f"{file}: names no class and no place to write to"]
    lines = [f"{file}:"]
    lines += [f"  imports {one.value}  ({one.option}; {origin(one.value)})" for one in classes]
    lines += [f"  writes to {one.value}  ({one.option})" for one in writes]
    return lines


def _read(file: Path) -> Any:
    named = f"file {str(file)!r}"
    text = read_outside_text(file, named, "a config, a checkpoint or a folder", MOST_BYTES)
    try:
        if file.suffix in OBJECTS:
            return json.loads(text)
        check_yaml(text)
        return yaml.safe_load(text)
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"{named}: not clear: {error}") from error


def _leaves(content: Any, option: str = "") -> Iterator[tuple[str, str, str]]:
    """Dotted option, its last key, and each string below it."""
    if isinstance(content, Mapping):
        for key, value in content.items():
            yield from _leaves(value, f"{option}.{key}" if option else str(key))
    elif isinstance(content, list):
        for number, value in enumerate(content):
            yield from _leaves(value, f"{option}.{number}")
    elif isinstance(content, str):
        yield option, next((part for part in reversed(option.split(".")) if not part.isdecimal()), ""), content


def _classes(content: Any) -> Iterator[Finding]:
    for option, key, value in _leaves(content):
        named = key in NAMES or ".auto_map." in f".{option}"
        # a class may also stand for itself, as in ``judge: unigap.judges.RandomJudge``
        if named or (IMPORT.fullmatch(value) and value[value.rindex(".") + 1].isupper()):
            yield Finding(option, value)


def _writes(content: Any) -> Iterator[Finding]:
    for option, key, value in _leaves(content):
        of_callback = key == "path" and option.startswith("trainer.callbacks")
        if value and (key in WRITES or of_callback):
            yield Finding(option, value)


def origin(name: str) -> str:
    """Where the code behind an import path lies, found without importing it.

    Args:
        name: Import path of a class.

    Returns:
        ``"unigap"``, the file or folder of another package, or that there is none.
    """
    top = name.rpartition("--")[2].split(".")[0]
    if "." not in name:
        return "by its short name"
    spec = PathFinder.find_spec(top, ["", *sys.path])
    if spec is None:
        return "not found here"
    if top == "unigap":
        return "unigap's own"
    places = list(spec.submodule_search_locations or ())
    where = Path(spec.origin or (places[0] if places else top))
    here = where.resolve().is_relative_to(Path.cwd()) and "site-packages" not in where.parts
    return f"{where}{', in the working directory' if here else ''}"


def _describe_pickle(file: Path) -> str:
    # imported here: torch takes seconds, and configs need none
    from torch.serialization import get_unsafe_globals_in_checkpoint

    if not zipfile.is_zipfile(file):
        return "a bare pickle, which unigap refuses to load"
    try:
        unsafe = sorted(get_unsafe_globals_in_checkpoint(str(file)))
    except Exception as error:  # whatever a damaged pickle raises
        return f"a damaged pickle ({type(error).__name__}), which unigap refuses to load"
    if unsafe:
        return f"a pickle that would import {', '.join(unsafe)[:200]}, which unigap refuses to load"
    return "tensors and plain values; it imports nothing"
