"""What a finished run leaves on disk, read back and checked.

The dataclasses are the format: ``summary.json`` holds a `Summary`; the optional ``curves.json`` a list of `Epoch`,
from epoch 0, before training; the optional ``gallery.json`` a list of `Exhibit`. Rates are shares in [0, 1], null where
there was nothing to measure; a number that is not finite is read as null. Keys not named here are ignored.
"""

from __future__ import annotations

import io
import json
import struct
import types
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from PIL import Image

PNG = b"\x89PNG\r\n\x1a\n"
MAX_IMAGE_BYTES, MAX_IMAGE_SIDE = 16 * 2**20, 4096
YES = 0.5
NAMES = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}


@dataclass(frozen=True)
class Reading:
    """A measured value with its 95 % interval.

    Attributes:
        value: A share in [0, 1] or a difference of shares in [-1, 1]; None if n is 0.
        low: Lower end of the interval, None where there is none.
        high: Upper end of the interval, None where there is none.
        n: Number of samples that count.
    """

    value: float | None
    low: float | None
    high: float | None
    n: int

    def __post_init__(self) -> None:
        if any(number is not None and abs(number) > 1 for number in (self.value, self.low, self.high)):
            raise ValueError("rates must be shares, so no number may exceed 1")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError(f"the interval is upside down: low {self.low}, high {self.high}")

    @property
    def sign(self) -> int:
        """Of a difference: 1 if it is surely above zero, -1 if surely below, 0 if its interval leaves that open."""
        if self.low is None or self.high is None:
            return 0
        return (self.low > 0) - (self.high < 0)


Readings = dict[str, Reading]


@dataclass(frozen=True)
class Part:
    """Readings by metric for one category or one difficulty."""

    before: Readings
    after: Readings


@dataclass(frozen=True)
class Round:
    """One round of drawing and judging.

    Attributes:
        round: Its number, from 0.
        prompts: Prompts drawn for.
        candidates: Drawings made.
        accepted: Candidates the model's own judge accepted.
        discarded: Prompts without any accepted candidate.
        truly_right: Accepted candidates that the external judge finds right, None where it was not asked.
        pool_rows: Training rows in the pool after the round.
    """

    round: int
    prompts: int
    candidates: int
    accepted: int
    discarded: int
    truly_right: int | None
    pool_rows: int

    def __post_init__(self) -> None:
        if not 0 <= (self.truly_right or 0) <= self.accepted <= self.candidates:
            raise ValueError("0 <= truly_right <= accepted <= candidates must hold")


@dataclass(frozen=True)
class Summary:
    """The run in numbers.

    Attributes:
        seed: Seed of the run.
        model: Name or folder of the model.
        n_eval_prompts: Number of prompts evaluated on.
        before: Readings by metric before training.
        after: Readings by metric after training.
        delta: Paired differences, after minus before.
        rounds: The rounds in order.
        wall_seconds: Seconds by phase.
        command: The command that repeats the run.
        versions: Version by package.
        by_category: Parts by category.
        by_difficulty: Parts by difficulty, easiest first.
        recipe: Settings by name.
    """

    seed: int
    model: str
    n_eval_prompts: int
    before: Readings
    after: Readings
    delta: Readings
    rounds: list[Round]
    wall_seconds: dict[str, float]
    command: str
    versions: dict[str, str]
    by_category: dict[str, Part] = field(default_factory=dict)
    by_difficulty: dict[str, Part] = field(default_factory=dict)
    recipe: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, readings in (("before", self.before), ("after", self.after), ("delta", self.delta)):
            for metric in ("generation", "non_unification"):
                if metric not in readings:
                    raise ValueError(f"{name} lacks {metric!r}")
        # A win rate alone mostly reads which way the judge's threshold drifted.
        if "win_rate" in self.after and not {"matched_win_rate", "delta_auroc"} <= self.after.keys():
            raise ValueError("after.win_rate needs after.matched_win_rate and after.delta_auroc beside it")


@dataclass(frozen=True)
class Epoch:
    """One point of the learning curves; what was not measured in this epoch is None.

    Attributes:
        epoch: Its number; 0 is before training.
        train_loss: Mean training loss.
        generation: Generation accuracy, with ends of its interval if they are known.
        non_unification: Non-unification score, with ends of its interval if they are known.
        understanding_renders: Accuracy of the judge on known images.
        judge_tnr: Share of wrong images the judge rejects.
        judge_precision: Share of accepted drawings that are right.
    """

    epoch: int
    train_loss: float | None = None
    generation: float | None = None
    generation_low: float | None = None
    generation_high: float | None = None
    non_unification: float | None = None
    non_unification_low: float | None = None
    non_unification_high: float | None = None
    understanding_renders: float | None = None
    judge_tnr: float | None = None
    judge_precision: float | None = None


@dataclass(frozen=True)
class Drawing:
    """A drawing with both verdicts.

    Attributes:
        image: Path of a PNG, relative to the run folder.
        p_yes: The own judge's probability of "yes", in [0, 1].
        external: Whether the external judge finds it right, None where it was not asked.
    """

    image: str
    p_yes: float
    external: bool | None

    @property
    def accepted(self) -> bool:
        """Whether the own judge says yes."""
        return self.p_yes >= YES

    @property
    def false_positive(self) -> bool:
        """Accepted by the own judge though the external judge finds it wrong."""
        return self.accepted and self.external is False


@dataclass(frozen=True)
class Exhibit:
    """The same prompt and seed, drawn before and after training."""

    prompt: str
    category: str
    difficulty: str
    seed: int
    before: Drawing
    after: Drawing


@dataclass(frozen=True)
class RunFolder:
    """A run folder, read and checked."""

    path: Path
    summary: Summary
    epochs: list[Epoch]
    exhibits: list[Exhibit]

    def png(self, name: str) -> bytes:
        """A whole PNG of the run.

        Raises:
            ValueError: It is missing, damaged, no PNG, or outside the run folder.
        """
        path = self.path / name
        if "\0" in name or not path.resolve().is_relative_to(self.path.resolve()):
            raise ValueError(f"gallery.json names {name!r}, which lies outside {self.path}; give paths inside it")
        try:
            size = path.stat().st_size
            data = path.read_bytes() if size <= MAX_IMAGE_BYTES else b""
        except OSError as error:
            raise ValueError(f"cannot read the image {path}: {error.strerror}; run the gallery again") from None
        if size > MAX_IMAGE_BYTES:
            raise ValueError(f"{path} is larger than {MAX_IMAGE_BYTES >> 20} MiB; give a drawing, not an archive")
        check_png(data, path)
        return data


def check_png(data: bytes, path: Path) -> None:
    """Make sure that bytes are one whole PNG image of a size a browser can take.

    Raises:
        ValueError: They are not, or its header promises more than ``MAX_IMAGE_SIDE`` pixels a side.
    """
    if not data.startswith(PNG) or data[12:16] != b"IHDR" or data[-8:-4] != b"IEND":
        raise ValueError(f"{path} is not a whole PNG image; run the gallery again")
    width, height = struct.unpack(">II", data[16:24])
    # before anything is unpacked: a few bytes can promise gigabytes of pixels
    if not (0 < width <= MAX_IMAGE_SIDE and 0 < height <= MAX_IMAGE_SIDE):
        raise ValueError(f"{path} is {width} x {height} pixels; at most {MAX_IMAGE_SIDE} a side are shown, shrink it")
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            image.load()
    except (OSError, SyntaxError, ValueError, struct.error) as error:
        raise ValueError(f"{path} is not a whole PNG image ({error}); run the gallery again") from None


def build(kind: Any, data: Any, where: str) -> Any:
    """Check JSON data against a declared type and turn it into that type.

    Args:
        kind: A dataclass, ``X | None``, ``dict[str, X]``, ``list[X]``, ``Any`` or a plain type.
        data: What ``json.loads`` gave.
        where: Path of the data, for the message.

    Returns:
        The data as ``kind``.

    Raises:
        ValueError: The data do not fit; the message says where.
    """
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any or (origin is types.UnionType and data is None):
        return data
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
    values, hints = {}, get_type_hints(kind)
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
    """Return ``data`` if it is of the kind, else raise ValueError."""
    if not isinstance(data, kind):
        raise ValueError(f"{where} must be {name}, got {json.dumps(data)[:60]}; write the run again")
    return data


def read_json(path: Path, kind: Any) -> Any:
    """Read a JSON file as the declared type.

    Raises:
        ValueError: It is missing, not JSON, or does not fit the type.
    """
    try:
        data = json.loads(path.read_bytes(), parse_constant=lambda _: None)
    except FileNotFoundError:
        raise ValueError(f"{path} is missing; give the folder of a finished run") from None
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged, not JSON ({error}); run it again") from None
    return build(kind, data, str(path))


def read_run(run: str | Path) -> RunFolder:
    """Read a run folder.

    Args:
        run: Folder with ``summary.json`` and, optionally, ``curves.json`` and ``gallery.json``.

    Returns:
        Its contents; the optional parts are empty where absent.

    Raises:
        ValueError: The folder or ``summary.json`` is missing, or a file is damaged.
    """
    folder = Path(run)
    if not folder.is_dir():
        raise ValueError(f"no run folder at {folder}; give the folder that holds summary.json")
    curves, gallery = folder / "curves.json", folder / "gallery.json"
    return RunFolder(
        path=folder,
        summary=read_json(folder / "summary.json", Summary),
        epochs=read_json(curves, list[Epoch]) if curves.exists() else [],
        exhibits=read_json(gallery, list[Exhibit]) if gallery.exists() else [],
    )
