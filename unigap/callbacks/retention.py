"""Run an understanding benchmark during training, so that losses are reported together with gains."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from unigap.evaluation.quizzes import Quiz, QuizSource, quiz_scores
from unigap.metrics.intervals import Estimate, paired_difference
from unigap.metrics.scores import says_yes
from unigap.stages import ImproveStage

# Shape legend: Q questions.


class Retention(Callback):
    """Ask the model a quiz at every validation; by default POPE's questions about objects.

    Logged for each setting of the quiz, e.g. ``retention/adversarial/f1``: ``accuracy``, ``precision``, ``recall``,
    ``f1``, ``yes_ratio`` and, while training, ``accuracy_change`` since the start of the run.

    Attributes:
        results: The same values with intervals, by setting and name; the change is paired by image.

    Args:
        quiz: The quiz; null takes that of the world whose prompts are trained or evaluated on.
        batch_size: Maximum number of questions in one forward pass.
    """

    def __init__(self, quiz: QuizSource | None = None, batch_size: int = 256) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be >= 1, got {batch_size}")
        self.source, self.batch_size = quiz, batch_size
        self.results: dict[str, dict[str, Estimate]] = {}
        self._start_Q: torch.Tensor | None = None
        self._key = ""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Load the quiz, and refuse runs without validation."""
        if not isinstance(pl_module, ImproveStage):
            raise ValueError(f"Retention examines self-improvement stages, not {type(pl_module).__name__}; remove it")
        if stage == "fit" and not trainer.limit_val_batches:
            raise ValueError("Retention asks at every validation and there is none; set trainer.limit_val_batches")
        if stage in ("fit", "validate"):
            self.quiz = self._quiz_source(pl_module).load()

    def _quiz_source(self, stage: ImproveStage) -> QuizSource:
        if self.source is not None:
            return self.source
        world = stage.pool_data.world
        if world is None:
            raise ValueError(
                "Retention needs questions, which data.prompts does not bring along; set quiz, e.g. to "
                "unigap.evaluation.quizzes.PopeFiles"
            )
        return world.quiz()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Ask the model before training; a resumed run keeps its first answers."""
        assert isinstance(pl_module, ImproveStage)
        key = _digest(self.quiz)
        if self._start_Q is None:
            self._start_Q, self._key = self.quiz.answers(pl_module.model, self.batch_size), key
        elif key != self._key:
            raise ValueError("Retention: this run began with another quiz; give the same one to resume it")

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Ask the model and log the scores."""
        if trainer.sanity_checking:
            return
        assert isinstance(pl_module, ImproveStage)
        quiz = self.quiz
        now_Q = quiz.answers(pl_module.model, self.batch_size)
        self.results = quiz_scores(quiz, now_Q)
        if self._start_Q is not None:
            for name, of in quiz.settings.items():
                change = _accuracy_change(self._start_Q[of], now_Q[of], quiz.truth_Q[of], quiz.picture_Q[of])
                self.results[name]["accuracy_change"] = change
        figures = {f"retention/{name}/{f}": e.value for name, found in self.results.items() for f, e in found.items()}
        pl_module.log_dict(figures, rank_zero_only=True)

    def state_dict(self) -> dict[str, Any]:
        """Return the first answers."""
        return {"start": self._start_Q, "quiz": self._key}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the first answers."""
        self._start_Q, self._key = state_dict["start"], state_dict["quiz"]


def _accuracy_change(
    start_Q: torch.Tensor, now_Q: torch.Tensor, truth_Q: torch.Tensor, picture_Q: torch.Tensor
) -> Estimate:
    ones_Q = torch.ones(len(truth_Q))
    right = [(says_yes(logit_Q) == truth_Q).double() for logit_Q in (start_Q, now_Q)]
    return paired_difference((right[0], ones_Q, picture_Q), (right[1], ones_Q, picture_Q))


def _digest(quiz: Quiz) -> str:
    sha = hashlib.sha256(quiz.pixels_PCHW.numpy().tobytes())
    sha.update(repr((quiz.picture_Q.tolist(), quiz.questions, quiz.truth_Q.tolist())).encode())
    return sha.hexdigest()
