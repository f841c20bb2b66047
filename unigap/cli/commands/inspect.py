"""``unigap inspect``: classes that a config or folder would import and places it would write to, without importing."""

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

from unigap.console.closing import close, command
from unigap.console.shipped_configs import shipped_configs
from unigap.console.strict_yaml import check_yaml
from unigap.files.outside import read_outside_text

MAX_BYTES = 16 * 2**20
CONFIGS, OBJECTS, CODE = (".yaml", ".yml"), (".json",), (".py",)
PICKLES = (".ckpt", ".pt", ".pth", ".bin", ".pkl", ".pickle")
DEPTH = 3
"""Depth to which folders are searched."""
CLASS_KEYS = ("class_path", "architectures", "auto_map", "processor_class", "tokenizer_class", "image_processor_type")
"""Keys whose values name classes."""
WRITE_KEYS = ("run", "folder", "pool", "out", "gap_out", "save_dir", "default_root_dir", "dirpath")
"""Keys whose values name files or folders to write."""
IMPORT = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")


@dataclass(frozen=True)
class Finding:
    """A value in a file, and its option.

    Attributes:
        option: Dotted name, e.g. ``"model.init_args.judge"``.
        value: The value.
    """

    option: str
    value: str


def inspect(target: str) -> None:
    """List the classes that a config, checkpoint or folder would import and the places it would write to.

    Nothing in it is imported, unpickled or run.

    Args:
        target: A config, the name of a shipped one, a Lightning checkpoint, or the folder of a run or a model.
    """
    path = Path(target)
    if not path.exists() and target in shipped_configs():
        path = shipped_configs()[target]
    print("\n".join(_inspect_folder(path, target) if path.is_dir() else _inspect_file(path)))
    trusting = command("fit", "--config", path) if path.suffix in CONFIGS else command("gap", "--checkpoint", path)
    close({}, f"if you trust what is listed: {trusting}")


def _inspect_folder(folder: Path, target: str) -> list[str]:
    files = [file for file in sorted(folder.rglob("*")) if len(file.relative_to(folder).parts) <= DEPTH]
    lines = [line for file in files if file.suffix in (*CONFIGS, *OBJECTS, *CODE, *PICKLES) and file.is_file()
             for line in _inspect_file(file, quiet=True)]  # fmt: skip
    return lines or [f"{target}: names no class, holds no code and no pickle"]


def _inspect_file(file: Path, quiet: bool = False) -> list[str]:
    if file.suffix in CODE:
        return [f"{file}: Python code; unigap never runs code of a model folder, but a config can import it"]
    if file.suffix in PICKLES:
        return [f"{file}: {_describe_pickle(file)}"]
    content = _read(file)
    classes, writes = list(dict.fromkeys(_classes(content))), list(dict.fromkeys(_writes(content)))
    if not classes and not writes:
        return [] if quiet else [f"{file}: names no class and no place to write to"]
    lines = [f"{file}:"]
    lines += [f"  imports {finding.value}  ({finding.option}; {origin(finding.value)})" for finding in classes]
    lines += [f"  writes to {finding.value}  ({finding.option})" for finding in writes]
    return lines


def _read(file: Path) -> Any:
    named = f"file {str(file)!r}"
    text = read_outside_text(file, named, "a config, a checkpoint or a folder", MAX_BYTES)
    try:
        if file.suffix in OBJECTS:
            return json.loads(text)
        check_yaml(text)
        return yaml.safe_load(text)
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"{named}: not clear: {error}") from error


def _leaves(content: Any, option: str = "") -> Iterator[tuple[str, str, str]]:
    """Yield the dotted option, its last key that is no list index, and the value of each string."""
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
        named = key in CLASS_KEYS or ".auto_map." in f".{option}"
        # a class path may also be the value of any option, e.g. ``judge: unigap.judges.RandomJudge``
        if named or (IMPORT.fullmatch(value) and value[value.rindex(".") + 1].isupper()):
            yield Finding(option, value)


def _writes(content: Any) -> Iterator[Finding]:
    for option, key, value in _leaves(content):
        of_callback = key == "path" and option.startswith("trainer.callbacks")
        if value and (key in WRITE_KEYS or of_callback):
            yield Finding(option, value)


def origin(name: str) -> str:
    """Return where the code of an import path lies, without importing it.

    Args:
        name: Import path of a class.

    Returns:
        The file or folder of its package, or a few words: unigap's own, not found, or a short name.
    """
    top = name.rpartition("--")[2].split(".")[0]
    if "." not in name:
        return "by its short name"
    spec = PathFinder.find_spec(top, ["", *sys.path])
    if spec is None:
        return "not found here"
    if top == "unigap":
        return "unigap's own"
    folders = list(spec.submodule_search_locations or ())
    path = Path(spec.origin or (folders[0] if folders else top))
    local = path.resolve().is_relative_to(Path.cwd()) and "site-packages" not in path.parts
    return f"{path}{', in the working directory' if local else ''}"


def _describe_pickle(file: Path) -> str:
    # imported here: torch takes seconds to import, and configs do not need it
    from torch.serialization import get_unsafe_globals_in_checkpoint

    if not zipfile.is_zipfile(file):
        return "a bare pickle, which unigap refuses to load"
    try:
        unsafe = sorted(get_unsafe_globals_in_checkpoint(str(file)))
    except Exception as error:  # a damaged pickle can raise anything
        return f"a damaged pickle ({type(error).__name__}), which unigap refuses to load"
    if unsafe:
        return f"a pickle that would import {', '.join(unsafe)[:200]}, which unigap refuses to load"
    return "tensors and plain values; it imports nothing"
