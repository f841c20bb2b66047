"""Pretraining of the embedded models: first the image tokenizer, then all other weights, in one schedule."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule

from unigap.models.engine.memory import settle_memory
from unigap.objectives.base import step_noise
from unigap.stages.step_seed import seed_step
from unigap.worlds.shapes.lesson_data import CrowdBatch, LessonBatch, ShapesLessons
from unigap.worlds.shapes.lessons import STATEMENTS
from unigap.worlds.shapes.untrained import UntrainedModel

QUESTION = "Does this image describe {prompt}?"
CAPTION_REQUEST = "Describe this image."


class PretrainStage(LightningModule):
    """Pretrain a small model of any family on the embedded world and save it in the family's checkpoint format.

    Args:
        untrained: The untrained model.
        out: Folder of the checkpoint; null is ``model`` in the run folder.
        tokenizer_lr: Peak learning rate of the image tokenizer.
        trunk_lr: Peak learning rate of all other weights.
        judging_lr: The same in the third phase, which trains only judging.
        recall_lr: The same in the last phase, which trains generation again.
        judge_weight: Weight of the yes/no answers; the image tokens have weight 1.
        caption_weight: Weight of the captions.
        prompt_dropout: Share of prompts replaced by the null prompt, for classifier-free guidance.
        rebuilt_share: Share of images that are judged and captioned after encoding and decoding by the tokenizer.
    """

    def __init__(
        self,
        untrained: UntrainedModel,
        out: str | None = None,
        tokenizer_lr: float = 2.0e-3,
        trunk_lr: float = 6.0e-4,
        judging_lr: float = 5.0e-4,
        recall_lr: float = 1.0e-4,
        judge_weight: float = 2.0,
        caption_weight: float = 0.25,
        prompt_dropout: float = 0.1,
        rebuilt_share: float = 0.5,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.automatic_optimization = False
        self.out = Path(out or "model")
        self.model = untrained.model()
        self.tokenizer = untrained.tokenizer(self.model)
        self.peaks = (tokenizer_lr, trunk_lr, judging_lr, recall_lr)
        self.judge_weight, self.caption_weight = judge_weight, caption_weight
        self.prompt_dropout, self.rebuilt_share = prompt_dropout, rebuilt_share

    @property
    def lessons(self) -> ShapesLessons:
        """The data module, which holds the length of each phase."""
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        if not isinstance(data, ShapesLessons):
            raise ValueError("PretrainStage trains on ShapesLessons; set it as data.class_path")
        return data

    def setup(self, stage: str) -> None:
        """Tune the allocator to the model."""
        settle_memory(self.model, self.trainer.strategy.root_device)

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """Return one AdamW for the tokenizer and one for all other weights."""
        tokenizer = list(self.tokenizer.parameters())
        taken = set(map(id, tokenizer))
        rest = [p for p in self.parameters() if id(p) not in taken]
        return [
            torch.optim.AdamW(tokenizer, betas=(0.9, 0.99)),
            torch.optim.AdamW(rest, betas=(0.9, 0.98), weight_decay=0.02),
        ]

    def on_train_batch_start(self, batch: CrowdBatch | LessonBatch, batch_idx: int) -> None:
        """Seed the step by its number, so that a resumed run samples the same."""
        seed_step(self.trainer, self.lessons.seed, batch_idx)

    def training_step(self, batch: CrowdBatch | LessonBatch, batch_idx: int) -> None:
        """Train one step of the phase that the batch belongs to."""
        optimizers: Any = self.optimizers()
        tokenizer_optimizer, rest_optimizer = optimizers
        tokenizing = isinstance(batch, CrowdBatch)
        optimizer = tokenizer_optimizer if tokenizing else rest_optimizer
        loss = self._tokenizer_loss(batch, batch_idx) if isinstance(batch, CrowdBatch) else self._lesson_loss(batch)
        for group in optimizer.param_groups:
            group["lr"] = self._rate(batch_idx)
        optimizer.zero_grad()
        self.manual_backward(loss)
        self.clip_gradients(optimizer, gradient_clip_val=1.0, gradient_clip_algorithm="norm")
        optimizer.step()
        if tokenizing:
            self.tokenizer.settle()

    def _rate(self, step: int) -> float:
        """Return the learning rate of a step: one warm-up and one cosine decay per phase."""
        for peak, steps in zip(self.peaks, self.lessons.phases, strict=True):
            if step < steps:
                return peak * warmup_cosine(step, steps)
            step -= steps
        raise IndexError("step is beyond the end of the schedule")

    def _tokenizer_loss(self, batch: CrowdBatch, step: int) -> torch.Tensor:
        loss: torch.Tensor = self.tokenizer(batch, step, self.lessons.phases[0])
        self.log("tokenizer/loss", loss, prog_bar=True)
        return loss

    def _lesson_loss(self, batch: LessonBatch) -> torch.Tensor:
        codes_BM = self.model.encode(batch.pixels_BCHW)
        loss = self._judging_loss(batch, codes_BM)
        return loss + self._drawing_loss(batch, codes_BM) if batch.drawing else loss

    def _drawing_loss(self, batch: LessonBatch, codes_BM: torch.Tensor) -> torch.Tensor:
        pairs = [(i, caption.text) for i, lesson in enumerate(batch.lessons) for caption in lesson.captions]
        prompt = self.model.encode_prompt([text for _, text in pairs])
        dropped_B = torch.rand(len(pairs), device=self.device) < self.prompt_dropout
        codes_RM = codes_BM[[i for i, _ in pairs]]
        noise_R = step_noise(self.model, len(codes_RM))
        nll = -self.model.image_logps(prompt.unconditional(dropped_B), codes_RM, noise_R).mean()
        self.log("image_nll", nll, prog_bar=True)
        return nll

    def _judging_loss(self, batch: LessonBatch, codes_BM: torch.Tensor) -> torch.Tensor:
        shown = batch.pixels_BCHW.clone()
        rebuilt = torch.rand(len(shown), device=self.device) < self.rebuilt_share
        shown[rebuilt] = self.model.decode(codes_BM[rebuilt])
        questions = [[QUESTION.format(prompt=d.text) for d, _ in lesson.statements] for lesson in batch.lessons]
        answers = [["yes" if true else "no" for _, true in lesson.statements] for lesson in batch.lessons]
        if batch.drawing:
            for i, lesson in enumerate(batch.lessons):
                questions[i].append(CAPTION_REQUEST)
                answers[i].append(lesson.caption.text)
        logp_BQT, mask_BQT = self.model.text_logps(shown, questions, answers)
        judged = -logp_BQT[:, :STATEMENTS].sum(-1).mean()
        self.log("judge_nll", judged, prog_bar=True)
        if not batch.drawing:
            return self.judge_weight * judged
        faithful = [i for i, lesson in enumerate(batch.lessons) if lesson.faithful]
        captions = -logp_BQT[faithful, STATEMENTS].sum() / mask_BQT[faithful, STATEMENTS].sum()
        self.log("caption_nll", captions, prog_bar=True)
        return self.judge_weight * judged + self.caption_weight * captions

    def on_train_end(self) -> None:
        """Save the checkpoint at the end of the schedule."""
        if self.trainer.is_global_zero and self.trainer.state.status == "running":
            self.model.save(self.out)


def warmup_cosine(step: int, length: int, warmup: int = 200) -> float:
    """Return the share of the peak learning rate at a step: linear warm-up, then cosine decay to zero."""
    rise = min(warmup, length // 10 + 1)
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, length - rise)))
