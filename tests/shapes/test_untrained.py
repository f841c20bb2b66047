"""Untrained models: one of each family, small enough to ship, and an image tokenizer that learns what cells show."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest
import torch
from small_runs import expect_error, words

from unigap.__main__ import main
from unigap.models.base import UnifiedModel
from unigap.worlds.shapes.lesson_data import CrowdBatch, crowd_batch
from unigap.worlds.shapes.tokenizer_training.named_codes import MIN_CODES, code_of
from unigap.worlds.shapes.untrained import (
    UntrainedEmu3,
    UntrainedJanus,
    UntrainedModel,
    UntrainedShowO,
    UntrainedVilaU,
)

NEWBORNS: dict[str, type[UntrainedModel]] = {
    "janus": UntrainedJanus,
    "emu3": UntrainedEmu3,
    "show-o": UntrainedShowO,
    "vila-u": UntrainedVilaU,
}
STEPS = 20


def told_apart(model: UnifiedModel, batch: CrowdBatch) -> float:
    """Share of pairs of cells whose codes differ just where their labels do; pairs that differ count half of it all."""
    label_N = code_of(batch.labels_BK3).flatten()
    # a cell may have several codes
    code_N = model.encode(batch.pixels_BCHW).reshape(len(label_N), -1).unique(dim=0, return_inverse=True)[1]
    alike, told_alike = label_N[:, None] == label_N, code_N[:, None] == code_N
    return (told_alike[alike].float().mean() + (~told_alike[~alike]).float().mean()).item() / 2


def error(model: UnifiedModel, batch: CrowdBatch) -> float:
    """Mean squared error of pictures that were encoded and decoded."""
    rebuilt_BCHW = model.decode(model.encode(batch.pixels_BCHW))
    return (rebuilt_BCHW - batch.pixels_BCHW).square().mean().item()


@pytest.mark.parametrize("family", NEWBORNS)
def test_an_untrained_model_can_be_shipped(family: str, tmp_path: Path) -> None:
    NEWBORNS[family]().model().save(tmp_path)
    assert sum(path.stat().st_size for path in tmp_path.rglob("*")) < 10_000_000
    trained = re.search(r"Trained: (.*)\.$", (tmp_path / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert trained and {"vqmodel", "magvit", "vision_tower"} & set(trained[1].split(", ")), (
        "all of it, the image tokenizer too"
    )


@pytest.mark.parametrize("family", NEWBORNS)
def test_a_tokenizer_learns_what_cells_show(family: str) -> None:
    torch.manual_seed(0)
    untrained = NEWBORNS[family]()
    model = untrained.model()
    trainer, batch = untrained.tokenizer(model), crowd_batch(random.Random(0), 2)
    was_told_apart, was_error = told_apart(model, batch), error(model, batch)
    optimizer = torch.optim.AdamW(trainer.parameters(), lr=5e-3)
    losses = []
    for step in range(STEPS):
        loss = trainer(batch, step, STEPS)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        trainer.settle()
    assert losses[-1] < 0.7 * losses[0]
    assert was_told_apart < 0.6 and told_apart(model, batch) > 0.8
    assert error(model, batch) < was_error / 2


def test_every_content_of_a_cell_has_its_own_code() -> None:
    cells = crowd_batch(random.Random(0), 2000).labels_BK3.flatten(0, 1).unique(dim=0)
    codes = code_of(cells)
    assert len(cells) == 241 and len(codes.unique()) == 241
    assert int(codes.max()) < MIN_CODES and codes[cells[:, 0] == 0].tolist() == [0]


def test_every_content_of_a_cell_has_its_own_residual_codes() -> None:
    cells = crowd_batch(random.Random(0), 2000).labels_BK3.flatten(0, 1).unique(dim=0)
    for depth, least in ((2, 32), (3, 21), (4, 16)):
        untrained = UntrainedVilaU(hidden_size=32, layers=1, n_codes=least, depth=depth)
        targets = untrained.tokenizer(untrained.model()).targets(cells[None])[0]
        assert targets.shape == (241, depth) and len(targets.unique(dim=0)) == 241
        assert int(targets.max()) < least
        # no code is used at two depths, so that the order of a sum's parts is known
        assert sum(len(column.unique()) for column in targets.unbind(1)) == len(targets.unique())


@pytest.mark.parametrize(
    ("config", "n_codes", "message"),
    [
        ("pretrain_show_o", 250, "n_codes must be a power of 2, got 250; take 256"),
        ("pretrain_show_o", 128, "n_codes must be >= 244, one for each possible content of a cell, got 128"),
        ("pretrain_emu3", 64, "n_codes must be >= 244, one for each possible content of a cell, got 64"),
        ("pretrain_vila_u", 31, "n_codes must be >= 32, 16 for each of 2 depths, got 31"),
    ],
)
def test_codes_that_an_untrained_model_cannot_have_are_refused(
    config: str, n_codes: int, message: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = main(words("fit", config, {"model.init_args.untrained.init_args.n_codes": n_codes}))
    expect_error(status, capsys, message)
