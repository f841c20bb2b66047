"""Find the folder of a checkpoint: a shipped model's name, a local folder, or a hub id."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from unigap.console.mistakes import shortened

SHIPPED = {
    "shapes": "janus",
    "shapes-emu3": "emu3",
    "shapes-emu3-question-first": "emu3_question_first",
    "shapes-show-o": "show_o",
}
"""Names of the shipped checkpoints and their folders."""


def resolve(checkpoint: str) -> str:
    """Return the folder of a shipped checkpoint, a local folder, or a hub id unchanged.

    Raises:
        ValueError: For a URL, a file, a path that does not exist, or a folder without config.json.
    """
    if checkpoint in SHIPPED:
        shipped = Path(str(files("unigap") / "worlds/shapes/checkpoints" / SHIPPED[checkpoint]))
        if not shipped.is_dir():
            raise ValueError(
                f"checkpoint {checkpoint!r} is not in this installation, only in the repository; clone it, or give "
                f"its folder {Path(*shipped.parts[-5:])}"
            )
        return str(shipped)
    if "://" in checkpoint:
        raise ValueError(f"checkpoint {checkpoint!r} is a URL; download it and give the folder")
    path = Path(checkpoint)
    if path.is_file():
        raise ValueError(f"checkpoint {checkpoint!r} is a file; give the folder with its config.json")
    if not path.is_dir() and (checkpoint.count("/") != 1 or checkpoint.startswith((".", "/", "~"))):
        raise ValueError(
            f"checkpoint {checkpoint!r}: no such folder; give a folder, a hub id, or one of {', '.join(SHIPPED)}"
        )
    if path.is_dir() and not (path / "config.json").is_file():
        raise ValueError(f"checkpoint {checkpoint!r}: the folder has no config.json; give a transformers checkpoint")
    return checkpoint


def local_folder(checkpoint: str, names: Sequence[str]) -> Path:
    """Return the folder of a checkpoint; the files of a hub id are downloaded into the hub's cache if needed.

    Args:
        checkpoint: As in ``resolve``.
        names: Names of the files, with ``*`` for any characters.

    Raises:
        ValueError: See ``resolve``, or the files cannot be downloaded.
    """
    folder = Path(resolve(checkpoint))
    if folder.is_dir():
        return folder
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(checkpoint, allow_patterns=list(names)))
    except Exception as error:  # network and hub errors have no common class
        raise ValueError(
            f"checkpoint {checkpoint!r} cannot be downloaded from the hub: {shortened(str(error))}; download it and "
            "give the folder"
        ) from error
