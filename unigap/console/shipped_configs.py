"""The configs that come with the package, by name."""

from __future__ import annotations

from pathlib import Path

from unigap.console.mistakes import hint

FOLDER = Path(__file__).parents[1] / "configs"
"""In a clone a link to ``configs/``, whose files the wheel holds here."""
INLINE = ("{", ":", "\n")
"""What a config written on the command line holds and the name of a shipped one does not."""


def shipped_configs() -> dict[str, Path]:
    """Return the path of every shipped config by its name, e.g. ``shapes/sft``."""
    files = sorted(FOLDER.rglob("*.yaml"))
    return {file.relative_to(FOLDER).with_suffix("").as_posix(): file for file in files}


def first_comment(config: Path) -> str:
    """Return the first line of a config without its comment sign; empty if it is no comment."""
    line = config.read_text(encoding="utf-8").partition("\n")[0]
    return line.removeprefix("#").strip() if line.startswith("#") else ""


def find_config(given: str) -> Path:
    """Return the path of a config.

    Args:
        given: The path of a file, or the name of a shipped config, with or without ``configs/`` and ``.yaml``.

    Raises:
        ValueError: There is neither a file nor a shipped config of this name.
    """
    if Path(given).exists():
        return Path(given)
    known = shipped_configs()
    name = given.removeprefix("configs/").removesuffix(".yaml")
    if name not in known:
        near = hint(name, known)
        more = near if "did you mean" in near else "; unigap configs lists the shipped ones"
        raise ValueError(f"config {given!r} does not exist{more}")
    return known[name]


def resolve_config(value: str) -> str:
    """Return a value of ``--config`` with the path of a shipped config in place of its name.

    Raises:
        ValueError: There is neither a file nor a shipped config of this name.
    """
    is_inline = not value or any(sign in value for sign in INLINE)
    return value if is_inline else str(find_config(value))
