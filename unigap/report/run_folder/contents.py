"""Read and check the files of a finished run.

The dataclasses define the format. ``summary.json`` holds a `Summary`. Optional files are ``curves.json``, a list of
`Epoch` from epoch 0, before training; ``gallery.json``, a list of `Exhibit`; ``rejudged.json``, a list of `Rejudged`;
and the folder ``dynamics`` of the `Dynamics` callback with ``dynamics.json``, a list of `Watched`, and its plots. Rates
are shares in [0, 1], null if there was nothing to measure. A number that is not finite is read as null. Other keys are
ignored. ``seals.json`` holds the digests of these files.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unigap.estimate import Estimate
from unigap.files.png import read_png
from unigap.files.seals import warn_unsealed, was_written
from unigap.files.typed_json import read_json
from unigap.report.run_folder.curves import Epoch, Watched
from unigap.report.run_folder.measured import Samples

YES = 0.5
DYNAMICS = "dynamics"
PICTURE = re.compile(r"(?P<kind>[a-z]+)-(?P<step>\d+)\.png")


Estimates = dict[str, Estimate]


def check_shares(figures: Mapping[str, Estimate], where: str) -> None:
    """Make sure that estimates are shares in [0, 1] or differences of shares in [-1, 1], with their ends in order.

    Args:
        figures: Estimates by name.
        where: Prefix of the names in the message.

    Raises:
        ValueError: One of them is not.
    """
    for name, found in figures.items():
        if any(abs(number) > 1 for number in (found.value, found.low, found.high)):
            raise ValueError(f"{where}{name}: rates must be shares, so no number may exceed 1")
        if found.low > found.high:
            raise ValueError(f"{where}{name}: the interval is upside down: low {found.low}, high {found.high}")


@dataclass(frozen=True)
class Part:
    """Estimates by metric for one category or one difficulty."""

    before: Estimates
    after: Estimates

    def __post_init__(self) -> None:
        check_shares(self.before, "before.")
        check_shares(self.after, "after.")


@dataclass(frozen=True)
class Round:
    """One round of sampling and judging.

    Attributes:
        round: Its number, from 0.
        prompts: Number of prompts.
        candidates: Number of candidates.
        accepted: Candidates that the selecting judge accepts.
        discarded: Prompts without an accepted candidate.
        pool_rows: Training rows in the pool after the round.
        truly_right: Accepted candidates that the external judge accepts too, None without an external judge.
        judged: Candidates that the selecting judge has judged, None if all.
    """

    round: int
    prompts: int
    candidates: int
    accepted: int
    discarded: int
    pool_rows: int
    truly_right: int | None = None
    judged: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= (self.truly_right or 0) <= self.accepted <= self.candidates - self.unjudged <= self.candidates:
            raise ValueError("0 <= truly_right <= accepted <= judged <= candidates must hold")

    @property
    def unjudged(self) -> int:
        """Candidates that the selecting judge has not judged."""
        return 0 if self.judged is None else self.candidates - self.judged


@dataclass(frozen=True)
class Summary:
    """The figures of a run.

    Attributes:
        seed: Seed of the run.
        model: Name or folder of the model.
        n_eval_prompts: Number of evaluation prompts.
        before: Estimates by metric before training.
        after: Estimates by metric after training.
        delta: Paired differences, after minus before.
        rounds: The rounds in order.
        wall_seconds: Seconds by phase.
        command: The command that repeats the run.
        versions: Version by package.
        by_category: Parts by category.
        by_difficulty: Parts by difficulty, easiest first.
        redrawn: Of the images that were wrong before, the share that are right after (``wrong_to_right``), and of the
            right images the share that are wrong after (``right_to_wrong``).
        rejudged: How often the judge after training flips verdicts on images generated before: the share of false
            positives that it rejects (``false_positives_rejected``), and likewise ``true_positives_rejected``,
            ``true_negatives_accepted`` and ``false_negatives_accepted``.
        recipe: Settings by name.
        measured_on: What the figures were measured on, by the keys of `measured.MUST_AGREE`, ``seed`` and ``weights``;
            empty in older runs, which did not record it.
        samples: Verdicts on each sample after training; None in older runs, which did not record them.
        steps: Number of optimizer steps; 0 in older runs, which did not record it.
    """

    seed: int
    model: str
    n_eval_prompts: int
    before: Estimates
    after: Estimates
    delta: Estimates
    rounds: list[Round]
    wall_seconds: dict[str, float]
    command: str
    versions: dict[str, str]
    by_category: dict[str, Part] = field(default_factory=dict)
    by_difficulty: dict[str, Part] = field(default_factory=dict)
    redrawn: Estimates = field(default_factory=dict)
    rejudged: Estimates = field(default_factory=dict)
    recipe: dict[str, Any] = field(default_factory=dict)
    measured_on: dict[str, Any] = field(default_factory=dict)
    samples: Samples | None = None
    steps: int = 0

    def __post_init__(self) -> None:
        measured = {"before": self.before, "after": self.after, "delta": self.delta}
        for name, estimates in {**measured, "redrawn": self.redrawn, "rejudged": self.rejudged}.items():
            check_shares(estimates, f"{name}.")
        for name, estimates in measured.items():
            needed = ["non_unification"] if self.without_external else ["generation", "non_unification"]
            for metric in needed:
                if metric not in estimates:
                    raise ValueError(f"{name} lacks {metric!r}")
        # A win rate alone mostly shows in which direction the judge's threshold drifted.
        if "win_rate" in self.after and not {"matched_win_rate", "delta_auroc"} <= self.after.keys():
            raise ValueError("after.win_rate needs after.matched_win_rate and after.delta_auroc beside it")

    @property
    def without_external(self) -> bool:
        """Whether the run had no external judge and so lacks the figures that need one."""
        return not any("generation" in estimates for estimates in (self.before, self.after, self.delta))


@dataclass(frozen=True)
class Drawing:
    """A generated image with both verdicts.

    Attributes:
        image: Path of a PNG, relative to the run folder.
        p_yes: The own judge's probability of "yes", in [0, 1].
        external: Whether the external judge accepts it, None without an external judge.
    """

    image: str
    p_yes: float
    external: bool | None

    @property
    def accepted(self) -> bool:
        """Whether the own judge accepts the image."""
        return self.p_yes >= YES

    @property
    def false_positive(self) -> bool:
        """Whether the own judge accepts the image and the external judge rejects it."""
        return self.accepted and self.external is False


@dataclass(frozen=True)
class Exhibit:
    """Images of one prompt and seed before and after training."""

    prompt: str
    category: str
    difficulty: str
    seed: int
    before: Drawing
    after: Drawing


@dataclass(frozen=True)
class Rejudged:
    """An image generated before training whose verdict differs after training.

    Attributes:
        prompt: Text of the prompt.
        category: Category of the prompt.
        difficulty: Difficulty of the prompt.
        seed: Sampling seed of the image.
        image: Path of a PNG, relative to the run folder.
        p_before: The judge's probability of "yes" before training, in [0, 1].
        p_after: The same after training.
        external: Whether the external judge accepts it.
    """

    prompt: str
    category: str
    difficulty: str
    seed: int
    image: str
    p_before: float
    p_after: float
    external: bool

    @property
    def kind(self) -> tuple[bool, bool]:
        """Whether the judge accepted the image before training, and whether it is right."""
        return self.p_before >= YES, self.external


@dataclass(frozen=True)
class RunFolder:
    """A run folder, read and checked."""

    path: Path
    summary: Summary
    epochs: list[Epoch]
    exhibits: list[Exhibit]
    rejudged: list[Rejudged]
    watched: list[Watched]

    @property
    def dynamics_pictures(self) -> dict[str, tuple[int, str]]:
        """The last plot of each kind of the `Dynamics` callback: step and path, by kind."""
        named = ((path, PICTURE.fullmatch(path.name)) for path in sorted((self.path / DYNAMICS).glob("*.png")))
        return {found["kind"]: (int(found["step"]), f"{DYNAMICS}/{path.name}") for path, found in named if found}

    def png(self, name: str) -> bytes:
        """Return the bytes of a PNG file of the run.

        Raises:
            ValueError: The file is missing, damaged, no PNG, or outside the run folder.
        """
        return read_png(self.path, name)


def read_run(run: str | Path) -> RunFolder:
    """Read a run folder.

    Args:
        run: Folder with ``summary.json`` and, optionally, the other files.

    Returns:
        Its contents; absent optional parts are empty.

    Raises:
        ValueError: The folder or ``summary.json`` is missing, or a file is damaged.
    """
    folder = Path(run)
    if not folder.is_dir():
        raise ValueError(f"no run folder at {folder}; give the folder that holds summary.json")
    warn_unsealed(folder / "summary.json")
    return RunFolder(
        path=folder,
        summary=read_json(folder / "summary.json", Summary),
        epochs=_rows(folder / "curves.json", list[Epoch]),
        exhibits=_rows(folder / "gallery.json", list[Exhibit]),
        rejudged=_rows(folder / "rejudged.json", list[Rejudged]),
        watched=_rows(folder / DYNAMICS / "dynamics.json", list[Watched]),
    )


def _rows(path: Path, kind: Any) -> Any:
    return read_json(path, kind) if was_written(path) else []
