"""Yes/no questions about pictures, as POPE asks them: is this object there, with negatives of three kinds."""

from __future__ import annotations

import itertools
import json
import random
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from unigap.evaluation.known_pairs import KnownPairs
from unigap.judges.self_judge import QUESTION, SelfJudge
from unigap.metrics.intervals import Estimate, bootstrap_ratio
from unigap.metrics.scores import judge_accuracy, judge_precision, says_yes, true_positive_rate, yes_rate
from unigap.models.base import UnifiedModel
from unigap.plots.pictures import check_side, read_image, to_pixels
from unigap.seeds import seed_of_part
from unigap.shapes.grammar import COLORS, DIFFICULTIES, SHAPES, Description, Thing
from unigap.shapes.prompt_sets import descriptions
from unigap.shapes.scenes import imagine, render

# Shape legend: P pictures, Q questions.

NEGATIVES = ("random", "popular", "adversarial")
AMONG = 3
"""A popular or adversarial object is one of the first so many."""


@dataclass(frozen=True)
class Quiz:
    """Questions about pictures.

    Attributes:
        pixels_PCHW: The pictures, in [-1, 1].
        picture_Q: Number of the picture each question is about, int64.
        questions: What is asked.
        truth_Q: Whether yes is right, bool.
        settings: Numbers of the questions of each setting, by name; settings may share questions.
    """

    pixels_PCHW: torch.Tensor
    picture_Q: torch.Tensor
    questions: tuple[str, ...]
    truth_Q: torch.Tensor
    settings: Mapping[str, torch.Tensor]

    def answers(self, model: UnifiedModel, batch_size: int = 256) -> torch.Tensor:
        """The model's log-odds of yes to each question, float32 (Q,) on the CPU."""
        asker, parts = SelfJudge(["{prompt}"], batch_size), []
        for start in range(0, len(self.questions), batch_size):
            batch = slice(start, start + batch_size)
            parts.append(asker.ask(model, self.questions[batch], self.pixels_PCHW[self.picture_Q[batch]]).float().cpu())
        return torch.cat(parts)


def quiz_scores(quiz: Quiz, logit_Q: torch.Tensor) -> dict[str, dict[str, Estimate]]:
    """POPE's figures of each setting: accuracy, precision, recall, F1 and yes-ratio, resampled by picture."""
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
    """Where a quiz comes from."""

    @abstractmethod
    def load(self) -> Quiz:
        """The quiz, the same one every time.

        Raises:
            ValueError: A file is missing or damaged, or holds too little.
        """


class ShapesQuiz(QuizSource):
    """Renders of the embedded world, with POPE's three settings of absent objects.

    A description in this world is true of exactly its objects, so "a red circle" cannot be asked about one object of
    several. The question names the whole picture instead, with the object that is there or, for a no, an absent one
    (a shape in a colour) in its place: drawn at random, from the most frequent in the split, or from those that stand
    most often beside what is in the picture.

    Args:
        split: Split of the prompts that are rendered; not one that is trained on.
        pictures: How many; each is asked about four times.
        seed: Which pictures; null follows the run's seed.
    """

    def __init__(self, split: str = "validation", pictures: int = 100, seed: int | None = None) -> None:
        if pictures < 1:
            raise ValueError(f"pictures must be >= 1, got {pictures}")
        self.split, self.pictures, self.seed = split, pictures, seed_of_part("quiz", seed)

    def load(self) -> Quiz:
        """Renders and questions."""
        rng = random.Random(f"quiz/{self.split}/{self.seed}")
        tiers = [descriptions("color", difficulty, self.split) for difficulty in DIFFICULTIES]
        absent = _Absent(list(itertools.chain(*tiers)))
        images, questions, truth = [], [], []
        for _ in range(self.pictures):
            described = rng.choice(rng.choice(tiers))
            images.append(render(imagine(described, rng)))
            place = rng.randrange(len(described.groups))
            claims = [described, *(_with(described, place, thing) for thing in absent.of(described, rng))]
            questions += [QUESTION.replace("{prompt}", claim.text) for claim in claims]
            truth += [True, False, False, False]
        number_Q = torch.arange(len(questions))
        asked = 1 + len(NEGATIVES)
        settings = {
            name: number_Q[(number_Q % asked == 0) | (number_Q % asked == kind)]
            for kind, name in enumerate(NEGATIVES, 1)
        }
        return Quiz(torch.stack(images), number_Q // asked, tuple(questions), torch.tensor(truth), settings)


class _Absent:
    """Knows which objects are frequent, and which stand beside which."""

    def __init__(self, described: Sequence[Description]) -> None:
        together = [sorted(set(description.things)) for description in described]
        self.seen = Counter(itertools.chain(*together))
        self.beside = Counter(pair for things in together for pair in itertools.permutations(things, 2))

    def of(self, description: Description, rng: random.Random) -> list[Thing]:
        """One object that is not there for each of ``NEGATIVES``."""
        present = set(description.things)
        kinds = [Thing(shape, color) for shape, color in itertools.product(SHAPES, COLORS)]
        absent = [thing for thing in kinds if thing not in present]
        near = {thing: sum(self.beside[thing, other] for other in present) for thing in absent}
        popular = sorted(absent, key=lambda thing: -self.seen[thing])[:AMONG]
        adversarial = sorted(absent, key=lambda thing: -near[thing])[:AMONG]
        return [rng.choice(absent), rng.choice(popular), rng.choice(adversarial)]


def _with(description: Description, place: int, thing: Thing) -> Description:
    groups = list(description.groups)
    groups[place] = (1, thing)
    return replace(description, groups=tuple(groups))


class PopeFiles(QuizSource):
    """POPE's own files: JSON lines of ``image``, ``text`` (the question) and ``label`` (yes or no).

    Args:
        files: The file of each setting, by name, e.g. ``{random: coco_pope_random.json}``.
        images: Folder of the images; empty is that of the file.
        side: Images are made squares of this many pixels, grey beside what is not square.
        n: Only the first so many questions of each file; 0 takes all.
    """

    def __init__(self, files: dict[str, str], images: str = "", side: int = 384, n: int = 0) -> None:
        check_side(side)
        if not files or n < 0:
            raise ValueError(f"PopeFiles needs at least one file and n >= 0, got {len(files)} and {n}")
        self.files, self.images, self.side, self.n = files, images, side, n

    def load(self) -> Quiz:
        """Questions of the files, each picture read once."""
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
    if not path.is_file():
        raise ValueError(f"quiz {str(path)!r}: no such file; give one of POPE's files")
    try:
        lines = [line for line in path.read_text(encoding="utf-8-sig").split("\n") if line.strip()]
    except UnicodeDecodeError as error:
        raise ValueError(f"quiz {str(path)!r}: not UTF-8 at byte {error.start}; convert it") from error
    if not lines:
        raise ValueError(f"quiz {str(path)!r}: the file holds no question; add one a line")
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        found = [row.get(name) for name in ("image", "text", "label")] if isinstance(row, dict) else []
        texts = [value.strip() for value in found if isinstance(value, str)]
        if len(texts) < 3 or texts[2] not in ("yes", "no"):
            raise ValueError(
                f"quiz {str(path)!r}, row {number}: needs a JSON object with 'image', 'text' and 'label', yes or no"
            )
        yield texts[0], texts[1], texts[2] == "yes"


class PairsQuiz(QuizSource):
    """Known pairs of images and captions, asked whether the image shows the caption.

    Args:
        pairs: The pairs.
        n: How many of them.
    """

    def __init__(self, pairs: KnownPairs, n: int = 200) -> None:
        if n < 2:
            raise ValueError(f"n must be >= 2, got {n}")
        self.pairs, self.n = pairs, n

    def load(self) -> Quiz:
        """One question a pair."""
        exam = self.pairs.load(self.n)
        questions = tuple(QUESTION.replace("{prompt}", claim) for claim in exam.claims)
        number_Q = torch.arange(len(questions))
        return Quiz(exam.pixels_BCHW, number_Q, questions, exam.truth_B, {"pairs": number_Q})
