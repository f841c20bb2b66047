"""Quizzes: benchmark questions about images, each answered yes or no, as in POPE (arXiv 2305.10355).

A quiz asks full questions, several for each image, in named settings; a probe set has one caption for each image, which
the judge puts into its own question.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from unigap.evaluation.probe_sources import ProbeSource
from unigap.files.images import check_side, read_image, to_pixels
from unigap.files.outside import read_outside_text
from unigap.judges.self_judge import QUESTION, SelfJudge
from unigap.metrics.intervals import Estimate, bootstrap_ratio
from unigap.metrics.scores import judge_accuracy, judge_precision, says_yes, true_positive_rate, yes_rate
from unigap.models.base import UnifiedModel
from unigap.prompt_sets.rows import MAX_BYTES, json_rows, text_field, with_known_keys
from unigap.world import class_of_worlds

# Shape legend: P images, Q questions.

POPE_KEYS = ("question_id", "image", "text", "label")


@dataclass(frozen=True)
class Quiz:
    """Yes/no questions about images.

    Attributes:
        pixels_PCHW: The images, in [-1, 1].
        picture_Q: Index of the image that each question is about, int64.
        questions: The questions, as the model reads them.
        truth_Q: Whether yes is right, bool.
        settings: Indices of the questions of each setting, by name; settings may share questions.
    """

    pixels_PCHW: torch.Tensor
    picture_Q: torch.Tensor
    questions: tuple[str, ...]
    truth_Q: torch.Tensor
    settings: Mapping[str, torch.Tensor]

    def answers(self, model: UnifiedModel, batch_size: int = 256) -> torch.Tensor:
        """Return the model's log-odds of yes to each question, float32 (Q,) on the CPU."""
        asker, parts = SelfJudge(["{prompt}"], batch_size), []
        for start in range(0, len(self.questions), batch_size):
            batch = slice(start, start + batch_size)
            parts.append(asker.ask(model, self.questions[batch], self.pixels_PCHW[self.picture_Q[batch]]).float().cpu())
        return torch.cat(parts)


def quiz_scores(quiz: Quiz, logit_Q: torch.Tensor) -> dict[str, dict[str, Estimate]]:
    """Return POPE's figures of each setting: accuracy, precision, recall, F1 and yes-ratio.

    Intervals resample whole images.
    """
    return {name: _scores(logit_Q[of], quiz.truth_Q[of], quiz.picture_Q[of]) for name, of in quiz.settings.items()}


def _scores(logit_Q: torch.Tensor, truth_Q: torch.Tensor, picture_Q: torch.Tensor) -> dict[str, Estimate]:
    yes_Q = says_yes(logit_Q)
    return {
        "accuracy": judge_accuracy(logit_Q, truth_Q, picture_Q),
        "precision": judge_precision(logit_Q, truth_Q, picture_Q),
        "recall": true_positive_rate(logit_Q, truth_Q, picture_Q),
        "f1": bootstrap_ratio(2 * (yes_Q & truth_Q).double(), yes_Q.double() + truth_Q.double(), picture_Q),
        "yes_ratio": yes_rate(logit_Q, picture_Q),
    }


class QuizSource(ABC):
    """Makes a quiz."""

    @abstractmethod
    def load(self) -> Quiz:
        """Return the quiz, the same one on every call.

        Raises:
            ValueError: A file is missing or damaged, or holds too few questions.
        """


class PopeFiles(QuizSource):
    """POPE's published files: JSON lines of ``image``, ``text`` (the question) and ``label`` (yes or no).

    Args:
        files: The file of each setting, by name, e.g. ``{random: coco_pope_random.json}``.
        images: Folder of the images; empty means the folder of the file.
        side: Images are resized to squares of this many pixels; the rest of an oblong one is filled with grey.
        n: Take only the first ``n`` questions of each file; 0 takes all.
    """

    def __init__(self, files: dict[str, str], images: str = "", side: int = 384, n: int = 0) -> None:
        check_side(side)
        if not files or n < 0:
            raise ValueError(f"PopeFiles needs at least one file and n >= 0, got {len(files)} and {n}")
        self.files, self.images, self.side, self.n = files, images, side, n

    def load(self) -> Quiz:
        """Return the questions of all files; each image is read once."""
        pictures: dict[Path, int] = {}
        picture: list[int] = []
        questions: list[str] = []
        truth: list[bool] = []
        settings: dict[str, torch.Tensor] = {}
        for name, file in self.files.items():
            first = len(questions)
            for image, question, label in itertools.islice(_pope_rows(Path(file)), self.n or None):
                path = Path(self.images or Path(file).parent) / image
                picture.append(pictures.setdefault(path, len(pictures)))
                questions.append(question)
                truth.append(label)
            settings[name] = torch.arange(first, len(questions))
        pixels = torch.stack([to_pixels(read_image(path), self.side) for path in pictures])
        return Quiz(pixels, torch.tensor(picture), tuple(questions), torch.tensor(truth), settings)


def _pope_rows(path: Path) -> Iterator[tuple[str, str, bool]]:
    named = f"quiz {str(path)!r}"
    text = read_outside_text(path, named, "one of POPE's files", MAX_BYTES)
    rows = list(with_known_keys(json_rows(text, named), named, POPE_KEYS))
    if not rows:
        raise ValueError(f"{named}: the file holds no question; add one a line")
    for where, row in rows:
        image, question, label = (text_field(row, name, where) for name in ("image", "text", "label"))
        if label not in ("yes", "no"):
            raise ValueError(f"{where}: 'label' must be yes or no, got {label[:40]!r}")
        yield image, question, label == "yes"


class PairsQuiz(QuizSource):
    """A probe set as a quiz: for each image, whether it shows the caption.

    Args:
        pairs: Source of the images and captions.
        n: Number of images.
    """

    def __init__(self, pairs: ProbeSource, n: int = 200) -> None:
        if n < 2:
            raise ValueError(f"n must be >= 2, got {n}")
        self.pairs, self.n = pairs, n

    def load(self) -> Quiz:
        """Return one question for each image, in one setting, ``pairs``."""
        probes = self.pairs.load(self.n)
        questions = tuple(QUESTION.replace("{prompt}", claim) for claim in probes.claims)
        number_Q = torch.arange(len(questions))
        return Quiz(probes.pixels_BCHW, number_Q, questions, probes.truth_B, {"pairs": number_Q})


def __getattr__(name: str) -> Any:
    return class_of_worlds(__name__, name)
