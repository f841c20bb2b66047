"""Easy prompts first: what easy means, and the order an epoch trains in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from small_runs import epochs, improve

from unigap.data import EpochBatches, PoolData
from unigap.loop.selection import acceptance
from unigap.pool import Pool
from unigap.records import Candidate, Prompt

JUDGE = "model.init_args.judge"
DEFT = {JUDGE: "unigap.judges.RandomJudge", f"{JUDGE}.init_args.yes_rate": 0.5, "trainer.limit_train_batches": "null"}


def test_a_prompt_is_as_easy_as_the_share_of_its_candidates_that_was_accepted() -> None:
    codes = np.zeros(4, dtype=np.int32)
    drawn = [Candidate(Prompt(name, name), 0, i, 0, codes, -1.0) for name in "abc" for i in range(4)]
    logits = {c.id: 1.0 if c.index < "abc".index(c.prompt.id) else -1.0 for c in drawn if c.id != "c@0.3"}
    assert acceptance(drawn, logits) == {"a": 0.0, "b": 0.25, "c": pytest.approx(2 / 3)}
    assert acceptance(drawn, logits, threshold=0.9) == {"a": 0.0, "b": 0.0, "c": 0.0}


def test_easier_rows_come_first_and_those_left_over_are_not_the_hardest() -> None:
    ease = [row % 5 / 4 for row in range(22)]
    every = [EpochBatches(22, 4, (7,), epoch=epoch, ease_R=ease) for epoch in range(40)]
    out = []
    for batches in every:
        order = [row for batch in batches for row in batch]
        assert [ease[row] for row in order] == sorted((ease[row] for row in order), reverse=True) and len(order) == 20
        out += sorted(set(range(22)) - set(order))
    assert len(set(out)) > 15 and {ease[row] for row in out} == set(ease)
    assert list(every[0]) != list(every[1]), "equals in another order"
    halves = [list(EpochBatches(22, 2, (7,), rank=rank, world=2, ease_R=ease)) for rank in (0, 1)]
    assert [a + b for a, b in zip(*halves, strict=True)] == list(every[0]), "the same order whoever shares it"


def test_a_run_learns_from_easy_prompts_first(janus_folder: Path, here: Path) -> None:
    assert improve(janus_folder, "sft", {**DEFT, "data.order": "easy_first"}) == 0
    pool = Pool.open(here / "runs/sft/pool")
    share = acceptance(pool.candidates(), pool.logits("random"))
    for rows in epochs(here / "runs/sft"):
        easy = [share[row.rpartition("@")[0]] for row in rows]
        assert easy == sorted(easy, reverse=True) and len(set(easy)) > 2
    with pytest.raises(ValueError, match="unknown order 'hard_first'; choose one of: random, easy_first"):
        PoolData(order="hard_first")
