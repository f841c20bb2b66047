"""Pools of latents: drawn, killed and resumed, damaged, trained on and exported."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import datasets
import numpy as np
import pytest
import torch
from latent_painter import CHANNELS, TOKENS, LatentPainter
from small_pools import flip, tree

from unigap.__main__ import main
from unigap.callbacks.run_summary import RunSummary, _kept
from unigap.evaluation.gap import measure
from unigap.files.durable import seal, unseal
from unigap.judges import RandomJudge
from unigap.loop.plan import RoundPlan
from unigap.loop.round import run_round
from unigap.loop.sampling import stack_drawings
from unigap.objectives import DPO
from unigap.pool import Pool
from unigap.pool import latents as latent_files
from unigap.pool.damage import find_damage
from unigap.records import Candidate, DrawingFormat, Prompt
from unigap.report.run_folder.writing import Measurement

PROMPTS = [Prompt(f"p{number}", f"a ring and {number} dots") for number in (3, 1, 2)]
PLAN = RoundPlan(candidates=4, images_per_batch=4, seed=5)
MODEL = "latent_painter.LatentPainter"


def new_pool(folder: Path) -> Pool:
    model = LatentPainter()
    return Pool.create(folder, model.drawing_digest(), model.drawing_format)


def draw(pool: Pool, round: int = 0, **options: Any) -> None:
    run_round(LatentPainter(), PROMPTS, [RandomJudge()], pool, round, PLAN, **options)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A pool of one round of latents."""
    draw(new_pool(tmp_path / "pool"))
    return tmp_path / "pool"


def test_the_pool_holds_what_was_judged(folder: Path) -> None:
    pool, model = Pool.open(folder), LatentPainter()
    assert json.loads((folder / "pool.json").read_text())["content"] == {
        "format": "unigap-pool-2",
        "model": model.drawing_digest(),
        "drawing": {"dtype": "float16", "shape": [TOKENS, CHANNELS]},
    }
    candidates = pool.candidates()
    assert [(c.prompt.id, c.index) for c in candidates] == [(f"p{p}", i) for p in (1, 2, 3) for i in range(4)]
    for candidate in candidates:
        assert candidate.logp is None and candidate.drawing.dtype == np.float16
        sampled = model.sample_images(
            model.encode_prompt([candidate.prompt.text]), seeds(candidate.seed), PLAN.sampling
        )
        assert np.array_equal(candidate.drawing, model.storable(sampled.drawings_BN[0]).numpy()[0])
    assert pool.verify() == [] and len(pool.logits("random")) == 12
    candidates[0].drawing[:] = 0
    assert candidates[0].drawing.any(), "a drawing is the caller's own"


def seeds(seed: int) -> torch.Tensor:
    return torch.tensor([[seed]])


@pytest.mark.parametrize("batches", [0, 1, 2])
def test_a_killed_round_continues_to_the_same_bytes(folder: Path, tmp_path: Path, batches: int) -> None:
    class Killed(Exception):
        pass

    drawn = 0

    def stop(images: int) -> None:
        nonlocal drawn
        drawn += 1
        if drawn > batches:
            raise Killed

    pool = new_pool(tmp_path / "killed")
    with pytest.raises(Killed):
        draw(pool, progress=stop)
    assert len(list(pool.folder.glob("round-00000.partial/latents-*.npy"))) == batches + 1
    assert pool.verify() == []
    draw(Pool.open(pool.folder))
    assert tree(pool.folder) == tree(folder)


def test_latents_are_merged_a_part_at_a_time(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latent_files, "LATENT_BYTES_AT_ONCE", 5 * TOKENS * CHANNELS * 2)
    draw(new_pool(tmp_path / "parts"))
    assert tree(tmp_path / "parts") == tree(folder)


def test_every_byte_of_the_latents_counts(folder: Path) -> None:
    path = folder / "round-00000/latents.npy"
    whole = path.read_bytes()
    for position in np.random.default_rng(0).choice(len(whole), 24, replace=False):
        flip(path, position, 1)
        assert [line for line in find_damage(folder) if line.startswith(str(path))], position
        with pytest.raises(ValueError, match=r"latents\.npy is damaged"):
            Pool.open(folder).candidates()
        path.write_bytes(whole)
    path.unlink()
    assert f"{path} is missing" in find_damage(folder)
    path.write_bytes(whole)
    assert find_damage(folder) == []


def test_damaged_latents_of_a_shard_are_named(tmp_path: Path) -> None:
    pool, model = new_pool(tmp_path / "pool"), LatentPainter()
    recipe = PLAN.recipe(model, [RandomJudge()])
    drawn = Pool.create(tmp_path / "other", "x", model.drawing_format)
    draw(drawn)
    candidates = drawn.candidates()
    pool.writer(0, recipe).write(candidates[:2], [])
    (path,) = pool.folder.glob("round-00000.partial/latents-*.npy")
    flip(path, 200, 4)
    assert find_damage(pool.folder) == [f"{path} is damaged: its sha256 is not the one in its name"]
    with pytest.raises(ValueError, match=r"latents-.* is damaged.*delete .*shard-.* are drawn again"):
        pool.writer(0, recipe)
    path.unlink()
    with pytest.raises(ValueError, match=r"latents-.* cannot be read.*delete .*shard-"):
        pool.writer(0, recipe)


@pytest.mark.parametrize(
    ("drawing", "message"),
    [
        (np.zeros((TOKENS, CHANNELS + 1), np.float16), r"is float16 \(16, 4\), not float16 \(16, 3\)"),
        (np.zeros((TOKENS, CHANNELS), np.int32), "is int32"),
        (np.full((TOKENS, CHANNELS), np.nan, np.float16), "is not finite in float16"),
        (np.full((TOKENS, CHANNELS), 1e6, np.float32), "is not finite in float16"),
    ],
)
def test_other_drawings_are_refused(tmp_path: Path, drawing: np.ndarray, message: str) -> None:
    pool = new_pool(tmp_path / "pool")
    draw(pool)
    candidate = replace(pool.candidates()[0], round=1, stored=drawing)
    with pytest.raises(ValueError, match=message):
        pool.writer(1, {}).write([candidate], [])
    assert not list(pool.folder.glob("round-00001.partial/*-*"))


@pytest.mark.parametrize("drawing", [None, {"dtype": "float64", "shape": [2]}, {"dtype": "float16", "shape": [0]}])
def test_a_pool_of_an_unknown_kind_of_drawing_is_refused(folder: Path, drawing: Any) -> None:
    content = unseal(folder / "pool.json").content
    (folder / "pool.json").write_bytes(seal(content | {"drawing": drawing}))
    with pytest.raises(ValueError, match=r"pool.json does not tell the type and shape of the drawings"):
        Pool.open(folder)
    assert any("does not tell the type and shape" in line for line in find_damage(folder))


def test_codes_of_several_levels_keep_their_shape(tmp_path: Path) -> None:
    codes = np.arange(12, dtype=np.int32).reshape(2, 2, 3)
    pool = Pool.create(tmp_path / "pool", "residual", DrawingFormat("int32", (2, 3)))
    writer = pool.writer(0, {})
    writer.write([Candidate(PROMPTS[0], 0, i, 0, codes[i], -1.0) for i in range(2)], [])
    with pytest.raises(ValueError, match=r"is int32 \(6,\), not int32 \(2, 3\)"):
        writer.write([Candidate(PROMPTS[0], 0, 2, 0, codes[0].ravel(), -1.0)], [])
    writer.commit(PROMPTS)
    assert not (pool.folder / "round-00000/latents.npy").exists()
    reopened = Pool.open(pool.folder).candidates()
    assert np.array_equal(stack_drawings(reopened).numpy(), codes)
    reopened.stage()
    assert np.array_equal(stack_drawings(reopened[::-1]).numpy(), codes[::-1])
    assert pool.verify() == []


def test_pairs_of_latents_are_trained_on(folder: Path) -> None:
    pool, objective = Pool.open(folder), DPO()
    rows = objective.rows(pool.candidates(), pool.logits("random"))
    batch = objective.collate([rows[i] for i in range(len(rows))], {})
    assert batch.drawings_B.shape == (len(rows), TOKENS, CHANNELS) and len(rows)
    assert np.array_equal(batch.rejected_B[0].numpy(), rows[0].rejected.drawing.astype(np.float32))


def test_export_leaves_latents_out_unless_asked(folder: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "pool", str(folder), "--out", "without", "--model", MODEL]) == 0
    assert "latents of the images are left out" in capsys.readouterr().out
    rows = datasets.load_dataset("without", split="train", cache_dir=str(here / "cache"))
    assert {"codes", "latents"}.isdisjoint(rows.column_names) and len(rows) == 12 and rows["logp"][0] is None
    assert "latents are left out" in Path("without/README.md").read_text()
    assert main(["export", "pool", str(folder), "--out", "with", "--model", MODEL, "--latents", "true"]) == 0
    rows = datasets.load_dataset("with", split="train", cache_dir=str(here / "cache"))
    for row, candidate in zip(rows, Pool.open(folder).candidates(), strict=True):
        assert np.array_equal(np.array(row["latents"], np.float16).reshape(TOKENS, CHANNELS), candidate.drawing)
    assert "(16, 3)" in Path("with/README.md").read_text()


def test_a_summary_shows_the_latents_that_it_measured_before_training() -> None:
    model, judge = LatentPainter(), RandomJudge()
    summary = RunSummary("unused", plan=RoundPlan(2))
    summary.prompts, summary.probe_set = PROMPTS, None
    measured = Measurement(measure(model, PROMPTS, summary.plan, judge, judge), None)
    summary._before = _kept(measured)
    stage = SimpleNamespace(model=model, device="cpu")
    restored = summary._restore_before(cast(Any, stage)).verdicts.sampled
    torch.testing.assert_close(restored.pixels_BCHW, measured.verdicts.sampled.pixels_BCHW, rtol=0, atol=2e-3)
    assert [one.seed for one in restored.candidates] == [one.seed for one in measured.verdicts.sampled.candidates]
