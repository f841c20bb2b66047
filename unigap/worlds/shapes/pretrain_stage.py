"""Pretraining of the embedded models: first the image tokenizer, then all other weights, in one schedule."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule

from unigap.models.base import UnifiedModel
from unigap.models.engine.memory import settle_memory
from unigap.models.families import load_model
from unigap.objectives.base import step_noise
from unigap.stages.step_seed import seed_step
from unigap.worlds.shapes.lesson_data import CrowdBatch, LessonBatch, ShapesLessons
from unigap.worlds.shapes.lessons import STATEMENTS
from unigap.worlds.shapes.tokenizer_training.base import TokenizerTrainer
from unigap.worlds.shapes.untrained import UntrainedModel

QUESTION = "Does this image describe {prompt}?"
CAPTION_REQUEST = "Describe this image."


class PretrainStage(LightningModule):
    """Pretrain a small model of any family on the embedded world and save it in the family's checkpoint format.

    Args:
        untrained: The untrained model to start from.
        model: The trained model to start from, instead of ``untrained``; it keeps its image tokenizer.
        out: Folder of the checkpoint; null is ``model`` in the run folder, empty writes none.
        tokenizer_from: Checkpoint of the family of ``untrained`` whose image tokenizer to use; set ``tokenizer_steps``
            of the data to 0 to keep it as it is. Null starts with an untrained tokenizer.
        tokenizer_lr: Peak learning rate of the image tokenizer.
        trunk_lr: Peak learning rate of all other weights.
        judge_weight: Weight of the yes/no answers; the image tokens have weight 1.
        caption_weight: Weight of the captions.
        prompt_dropout: Share of prompts replaced by the null prompt, for classifier-free guidance.
        rebuilt_share: Share of images that are judged and captioned after encoding and decoding by the tokenizer.
        decay_steps: Steps of the cosine decay at the end of each phase; before it the learning rate is constant. Null
            decays from the warm-up on.
    """

    def __init__(
        self,
        untrained: UntrainedModel | None = None,
        model: UnifiedModel | None = None,
        out: str | None = None,
        tokenizer_from: str | None = None,
        tokenizer_lr: float = 2.0e-3,
        trunk_lr: float = 5.0e-4,
        judge_weight: float = 2.0,
        caption_weight: float = 0.25,
        prompt_dropout: float = 0.1,
        rebuilt_share: float = 0.5,
        decay_steps: int | None = None,
    ) -> None:
        super().__init__()
        if decay_steps is not None and decay_steps < 0:
            raise ValueError(f"decay_steps must be >= 0, got {decay_steps}")
        if (untrained is None) == (model is None):
            raise ValueError(
                "PretrainStage starts from an untrained model or from a trained one: set untrained or model"
            )
        if tokenizer_from and untrained is None:
            raise ValueError("tokenizer_from goes with untrained; a trained model keeps its image tokenizer")
        self.save_hyperparameters(ignore=["model"])
        self.automatic_optimization = False
        self.out = None if out == "" else Path(out or "model")
        self.tokenizer: TokenizerTrainer | None = None
        if untrained is not None:
            self.model = untrained.model()
            self.tokenizer = untrained.tokenizer(self.model)
            if tokenizer_from:
                load_tokenizer(self.tokenizer, untrained, tokenizer_from)
        elif model is not None:
            self.model = model
        self.tokenizer_lr, self.trunk_lr = tokenizer_lr, trunk_lr
        self.judge_weight, self.caption_weight = judge_weight, caption_weight
        self.prompt_dropout, self.rebuilt_share = prompt_dropout, rebuilt_share
        self.decay_steps = decay_steps

    @property
    def lessons(self) -> ShapesLessons:
        """The data module, which holds the length of each phase."""
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        if not isinstance(data, ShapesLessons):
            raise ValueError("PretrainStage trains on ShapesLessons; set it as data.class_path")
        return data

    def setup(self, stage: str) -> None:
        """Check the phases and tune the allocator to the model."""
        if self.tokenizer is None and self.lessons.tokenizer_steps:
            raise ValueError("a trained model keeps its image tokenizer; set tokenizer_steps of the data to 0")
        settle_memory(self.model, self.trainer.strategy.root_device)

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """Return one AdamW for all weights except the tokenizer's, and one for the tokenizer if it is trained."""
        tokenizer = list(self.tokenizer.parameters()) if self.tokenizer else []
        taken = set(map(id, tokenizer))
        rest = [p for p in self.parameters() if id(p) not in taken]
        optimizers: list[torch.optim.Optimizer] = [torch.optim.AdamW(rest, betas=(0.9, 0.98), weight_decay=0.02)]
        return [*optimizers, torch.optim.AdamW(tokenizer, betas=(0.9, 0.99))] if tokenizer else optimizers

    def on_train_batch_start(self, batch: CrowdBatch | LessonBatch, batch_idx: int) -> None:
        """Seed the step by its number, so that a resumed run samples the same."""
        seed_step(self.trainer, self.lessons.seed, batch_idx)

    def training_step(self, batch: CrowdBatch | LessonBatch, batch_idx: int) -> None:
        """Train one step of the phase that the batch belongs to."""
        tokenizing = isinstance(batch, CrowdBatch)
        optimizers: Any = self.optimizers()
        optimizer = optimizers[int(tokenizing)] if self.tokenizer else optimizers
        loss = self._tokenizer_loss(batch, batch_idx) if isinstance(batch, CrowdBatch) else self._lesson_loss(batch)
        for group in optimizer.param_groups:
            group["lr"] = self._rate(batch_idx)
        optimizer.zero_grad()
        self.manual_backward(loss)
        self.clip_gradients(optimizer, gradient_clip_val=1.0, gradient_clip_algorithm="norm")
        optimizer.step()
        if self.tokenizer and tokenizing:
            self.tokenizer.settle()

    def _rate(self, step: int) -> float:
        """Return the learning rate of a step: one warm-up and one cosine decay for each phase."""
        first, second = self.lessons.tokenizer_steps, self.lessons.trunk_steps
        if step < first:
            return self.tokenizer_lr * warmup_cosine(step, first, decay_steps=self.decay_steps)
        return self.trunk_lr * warmup_cosine(step - first, second, decay_steps=self.decay_steps)

    def _tokenizer_loss(self, batch: CrowdBatch, step: int) -> torch.Tensor:
        assert self.tokenizer is not None
        loss: torch.Tensor = self.tokenizer(batch, step, self.lessons.tokenizer_steps)
        self.log("tokenizer/loss", loss, prog_bar=True)
        return loss

    def _lesson_loss(self, batch: LessonBatch) -> torch.Tensor:
        codes_BM = self.model.encode(batch.pixels_BCHW)
        return self._judging_loss(batch, codes_BM) + self._drawing_loss(batch, codes_BM)

    def _drawing_loss(self, batch: LessonBatch, codes_BM: torch.Tensor) -> torch.Tensor:
        pairs = [(i, prompt.text) for i, prompts in enumerate(batch.prompts) for prompt in prompts]
        prompt = self.model.encode_prompt([text for _, text in pairs])
        dropped_B = torch.rand(len(pairs), device=self.device) < self.prompt_dropout
        codes_RM = codes_BM[[i for i, _ in pairs]]
        noise_R = step_noise(self.model, len(codes_RM))
        nll = -self.model.image_logps(prompt.unconditional(dropped_B), codes_RM, noise_R).mean()
        self.log("image_nll", nll, prog_bar=True)
        return nll

    def _judging_loss(self, batch: LessonBatch, codes_BM: torch.Tensor) -> torch.Tensor:
        lessons = batch.lessons[: batch.questioned]
        shown = batch.pixels_BCHW[: batch.questioned].clone()
        rebuilt = torch.rand(len(shown), device=self.device) < self.rebuilt_share
        shown[rebuilt] = self.model.decode(codes_BM[: batch.questioned][rebuilt])
        questions = [[QUESTION.format(prompt=d.text) for d, _ in lesson.statements] for lesson in lessons]
        answers = [["yes" if true else "no" for _, true in lesson.statements] for lesson in lessons]
        for i, lesson in enumerate(lessons):
            questions[i].append(CAPTION_REQUEST)
            answers[i].append(lesson.caption.text)
        logp_BQT, mask_BQT = self.model.text_logps(shown, questions, answers)
        judged = -logp_BQT[:, :STATEMENTS].sum(-1).mean()
        self.log("judge_nll", judged, prog_bar=True)
        faithful = [i for i, lesson in enumerate(lessons) if lesson.faithful]
        # of few questioned lessons, none may have a caption that is true
        captions = -logp_BQT[faithful, STATEMENTS].sum() / mask_BQT[faithful, STATEMENTS].sum().clamp_min(1)
        self.log("caption_nll", captions, prog_bar=True)
        return self.judge_weight * judged + self.caption_weight * captions

    def on_train_end(self) -> None:
        """Save the checkpoint at the end of the schedule."""
        if self.out and self.trainer.is_global_zero and self.trainer.state.status == "running":
            self.model.save(self.out)


def load_tokenizer(tokenizer: TokenizerTrainer, untrained: UntrainedModel, checkpoint: str) -> None:
    """Load the weights of a checkpoint's image tokenizer into one of the same family and size.

    Raises:
        ValueError: The checkpoint is of another family, or its tokenizer has another size.
    """
    try:
        trained = untrained.tokenizer(load_model(checkpoint))
        tokenizer.tokenizer.load_state_dict(trained.tokenizer.state_dict())
    except (AttributeError, RuntimeError) as error:
        raise ValueError(
            f"tokenizer_from {checkpoint!r} is of another family than untrained, or its tokenizer is of another size"
        ) from error


def warmup_cosine(step: int, length: int, warmup: int = 200, decay_steps: int | None = None) -> float:
    """Return the share of the peak learning rate at a step: linear warm-up, constant, then cosine decay to zero.

    Args:
        step: Number of the step, from 0.
        length: Number of steps.
        warmup: Largest number of warm-up steps; at most about a tenth of ``length`` is used.
        decay_steps: Number of steps of the decay; ``None`` decays from the warm-up on.

    >>> [round(warmup_cosine(step, 100, decay_steps=50), 2) for step in (0, 10, 50, 75, 99)]
    [0.09, 0.91, 1.0, 0.5, 0.0]
    """
    rise = min(warmup, length // 10 + 1)
    if step < rise:
        return (step + 1) / rise
    fall = rise if decay_steps is None else max(rise, length - decay_steps)
    return 0.5 * (1 + math.cos(math.pi * max(0, step - fall) / max(1, length - fall)))
