"""Pretraining with noisy captions: how many captions are wrong, what is asked, and the curve in the card."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from kill_points import Killed
from lightning.pytorch import Trainer
from plain_truths import is_true
from small_runs import PRETRAIN, TRAINER, words

from unigap.__main__ import main
from unigap.models.janus import Janus
from unigap.stages import PretrainStage
from unigap.worlds.shapes.lesson_data import LessonBatch, ShapesLessons, lesson_batch
from unigap.worlds.shapes.pretraining_curve import CURVE, largest_fall

NOISY = {
    **TRAINER,
    **PRETRAIN,
    "data.tokenizer_steps": 1,
    "data.trunk_steps": 4,
    "model.init_args.decay_steps": 2,
    "trainer.callbacks.every_n_steps": 2,
    "checkpoint.every_n_train_steps": 1,
}


def wrong_share(batch: LessonBatch) -> float:
    told = [(prompt, lesson) for lesson, said in zip(batch.lessons, batch.prompts, strict=True) for prompt in said]
    return sum(not is_true(prompt, lesson.scene) for prompt, lesson in told) / len(told)


def test_the_stated_share_of_captions_is_wrong() -> None:
    clean, noisy, all_wrong = (lesson_batch(random.Random(0), 600, noise, 1.0) for noise in (0.0, 0.35, 1.0))
    assert clean.lessons == noisy.lessons == all_wrong.lessons
    assert clean.prompts == tuple(tuple(lesson.captions) for lesson in clean.lessons)
    assert wrong_share(clean) == 0
    assert wrong_share(noisy) == pytest.approx(0.35, abs=0.05)
    assert wrong_share(all_wrong) > 0.98


def test_a_batch_depends_on_the_seed_and_its_number_alone() -> None:
    def batches(seed: int) -> list[LessonBatch]:
        data = ShapesLessons(0, 3, trunk_batch=8, seed=seed)
        data.trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
        return [batch for batch in data.train_dataloader() if isinstance(batch, LessonBatch)]

    first, again, other = batches(0), batches(0), batches(1)
    assert len(first) == 3
    assert [b.prompts for b in first] == [b.prompts for b in again] != [b.prompts for b in other]


def test_only_the_questioned_lessons_are_asked_about(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []
    text_logps = Janus.text_logps

    def asking(model: Janus, pixels_BCHW: torch.Tensor, *told: Any) -> Any:
        asked.append((len(pixels_BCHW), len(told[0][0])))
        return text_logps(model, pixels_BCHW, *told)

    monkeypatch.setattr(Janus, "text_logps", asking)
    flags = {**NOISY, "data.trunk_batch": 8, "data.questioned_share": 0.25, "trainer.callbacks": "null"}
    assert main(words("fit", "pretrain", {k: v for k, v in flags.items() if "callbacks." not in k})) == 0
    assert asked == [(2, 5)] * 4
    asked.clear()
    assert main(words("fit", "pretrain", {**flags, "run": "instructed", "data.instruct_steps": 1})) == 0
    assert asked == [(2, 5)] * 3 + [(8, 5)], "the last batch is about every lesson"


def test_the_curve_is_in_the_card_and_a_resumed_run_continues_it(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = here / "runs/pretrain"
    assert main(words("fit", "pretrain", NOISY)) == 0
    curve, weights, card = (run / "model" / name for name in (CURVE, "model.safetensors", "README.md"))
    rows = json.loads(curve.read_text())
    assert [row["step"] for row in rows] == [2, 4] and rows == json.loads((run / CURVE).read_text())
    section = card.read_text().partition("## Pretraining curve")[2]
    for row in rows:
        assert f"| {row['step']} | {100 * row['generation']['value']:.1f} |" in section
    fall = largest_fall([100 * row["generation"]["value"] for row in rows])
    assert f"Largest fall of generation accuracy below an earlier measurement: {fall:.1f} points." in section
    whole = {path: path.read_bytes() for path in (curve, weights, card)}

    (here / "again").mkdir()
    monkeypatch.chdir(here / "again")
    step = PretrainStage.training_step

    def killed(stage: PretrainStage, batch: Any, number: int) -> None:
        if number == 4:
            raise Killed
        step(stage, batch, number)

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(PretrainStage, "training_step", killed)
        main(words("fit", "pretrain", NOISY))
    assert main(words("fit", "pretrain", {**NOISY, "resume": "must"})) == 0
    again = here / "again/runs/pretrain/model"
    assert all((again / path.name).read_bytes() == content for path, content in whole.items())


def test_recall_trains_on_from_a_checkpoint_and_keeps_its_tokenizer(here: Path) -> None:
    assert main(words("fit", "pretrain", NOISY)) == 0
    made = here / "runs/pretrain/model"
    flags = {**TRAINER, "trainer.max_epochs": 1, "data.trunk_steps": 2, "data.trunk_batch": 2}
    flags |= {"model.init_args.model.init_args.checkpoint": made}
    flags |= {"trainer.callbacks": "unigap.worlds.shapes.pretraining_curve.PretrainingCurve"}
    flags |= {"trainer.callbacks.per_cell": 1, "trainer.callbacks.candidates": 1}
    assert main(words("fit", "recall", flags)) == 0
    assert [row["step"] for row in json.loads(Path("runs/recall", CURVE).read_text())] == [0, 2]
    old, new = (Janus(str(folder)).state_dict() for folder in (made, here / "runs/recall/model"))
    tokenizer = {name for name in old if "vqmodel" in name}
    assert tokenizer and all(torch.equal(old[name], new[name]) for name in tokenizer)
    assert not all(torch.equal(old[name], new[name]) for name in old)


def test_pretraining_keeps_the_tokenizer_of_another_checkpoint(here: Path) -> None:
    assert main(words("fit", "pretrain", NOISY)) == 0
    made = here / "runs/pretrain/model"
    flags = {**NOISY, "run": "other", "data.tokenizer_steps": 0, "model.init_args.tokenizer_from": made}
    assert main(words("fit", "pretrain", {**flags, "seed_everything": 5})) == 0
    old, new = (Janus(str(folder)).state_dict() for folder in (made, here / "other/model"))
    same = {name for name in old if torch.equal(old[name], new[name])}
    assert same == {name for name in old if "vqmodel" in name}
