"""Ways to break a checkpoint folder, and what has to be said of a broken one."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

Breakage = Callable[[Path], object]


def edit_config(**changes: object) -> Breakage:
    """Other values in config.json."""

    def edit(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return edit


def edit_json(name: str, path: Sequence[str | int], value: object) -> Breakage:
    """Another value somewhere in a JSON file; ``...`` removes it."""

    def edit(folder: Path) -> None:
        content = place = json.loads((folder / name).read_text())
        for key in path[:-1]:
            place = place[key]
        if value is ...:
            del place[path[-1]]
        else:
            place[path[-1]] = value
        (folder / name).write_text(json.dumps(content))

    return edit


def edit_weights(change: Callable[[dict[str, torch.Tensor]], object], name: str = "model.safetensors") -> Breakage:
    """Other tensors, in a sound file."""

    def edit(folder: Path) -> None:
        weights = load_file(folder / name)
        change(weights)
        save_file(weights, folder / name, metadata={"format": "pt"})

    return edit


def add_words(name: str, count: int) -> Breakage:
    """More words in a tokenizer's file."""

    def edit(folder: Path) -> None:
        content = json.loads((folder / name).read_text())
        vocabulary, added = content["model"]["vocab"], [token["id"] for token in content["added_tokens"]]
        first = max(*vocabulary.values(), *added) + 1
        vocabulary |= {f"word{number}": first + number for number in range(count)}
        (folder / name).write_text(json.dumps(content))

    return edit


def remove(name: str) -> Breakage:
    """A file less."""
    return lambda folder: (folder / name).unlink()


def write(name: str, content: bytes) -> Breakage:
    """A file that holds something else."""
    return lambda folder: (folder / name).write_bytes(content)


def truncate(folder: Path) -> None:
    """Half of the weights' file."""
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


NO_END = b"{% for a in range(99999) %}" * 3 + b"{% endfor %}" * 3
"""A chat template that runs for ever."""
TOO_LONG = b"{% for a in range(99999) %}{{ 'x' * 99999 }}{% endfor %}"
"""A chat template that fills memory."""


def pickle_only(folder: Path) -> None:
    """The same weights, pickled."""
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def expect_refusal(load: Callable[[str], object], sound: Path, broken: Path, breakage: tuple[Breakage, str]) -> None:
    """A copy of a sound folder, broken, gives one line that names the folder and says what is wrong."""
    damage, reason = breakage
    shutil.copytree(sound, broken)
    damage(broken)
    with pytest.raises(ValueError, match=reason) as error:
        load(str(broken))
    assert str(broken) in str(error.value) and len(str(error.value).splitlines()) == 1


def expect_pickles_unopened(
    load: Callable[[str], object], sound: Path, place: Path, name: str = "model.safetensors"
) -> None:
    """A pickle that would run code in place of the weights is not opened."""
    hostile = b"cos\nmkdir\n(S'" + str(place / "owned").encode() + b"'\ntR."

    def damage(folder: Path) -> None:
        (folder / name).unlink()
        (folder / "pytorch_model.bin").write_bytes(hostile)

    expect_refusal(load, sound, place / "hostile", (damage, re.escape(name)))
    assert not (place / "owned").exists()
