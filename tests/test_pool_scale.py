"""Large pools in small pieces: row groups, columns instead of records, drawings by row."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_pools import PROMPTS, RECIPE, committed, draw, fill, grow, rows, tree

from unigap.data import EpochBatches
from unigap.loop.counts import count_round
from unigap.loop.members import distinct_members, stage_members
from unigap.loop.selection import acceptance, accepted_rows, balanced, discarded_prompts, preference_pairs, select
from unigap.objectives import DPO, SFT, KLToBase
from unigap.pool import Pool, candidates, columns, drawings, ranking, sealing
from unigap.records import Judgment


@pytest.fixture
def pool(tmp_path: Path) -> Pool:
    """Five rounds; the judge has ties and leaves candidates out."""
    pool = Pool.create(tmp_path / "pool", "family")
    for round in range(5):
        add_round(pool, round)
    return pool


def add_round(pool: Pool, round: int, n: int = 12) -> None:
    writer, rng = pool.writer(round, RECIPE), random.Random(round)
    for prompt in PROMPTS[round % 2 :]:
        drawn = draw(prompt, round, n)
        said = [Judgment(c.id, "self", rng.choice([-1.0, 0.0, 0.0, 2.0])) for c in drawn if rng.random() < 0.7]
        writer.write(drawn, [*said, *(Judgment(c.id, "oracle", rng.uniform(-1, 1)) for c in drawn)])
    writer.commit(PROMPTS)


# Sealing


@pytest.mark.parametrize(("limit", "most"), [("MOST_ROWS", 5), ("MOST_VALUES", 16 * 7), ("MOST_ROWS", 1)])
def test_a_round_of_many_row_groups_reads_as_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, most: int
) -> None:
    grow(tmp_path / "whole")
    monkeypatch.setattr(sealing, limit, most)
    grow(tmp_path / "parts")
    expected, parts = Pool.open(tmp_path / "whole"), Pool.open(tmp_path / "parts")
    assert (
        tree(parts.folder)["round-00001/candidates.parquet"] != tree(expected.folder)["round-00001/candidates.parquet"]
    )
    assert rows(parts.candidates()) == rows(expected.candidates()) and parts.judgments() == expected.judgments()
    assert parts.verify() == []
    three = Pool.create(tmp_path / "three", "family")
    fill(three, 0, PROMPTS[:2], world_size=3)
    fill(three, 1, PROMPTS, world_size=3)
    inside = {name: data for name, data in committed(parts.folder).items() if name.startswith("round-")}
    assert {name: data for name, data in tree(three.folder).items() if name.startswith("round-")} == inside


def test_faults_of_a_round_of_many_row_groups_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealing, "MOST_ROWS", 2)
    pool = Pool.create(tmp_path / "pool", "family")
    writer = pool.writer(0, RECIPE)
    for prompt in PROMPTS:
        writer.write(draw(prompt, 0), [])
    with pytest.raises(ValueError, match="is not among the prompts asked"):
        writer.commit(PROMPTS[:-1])
    with pytest.raises(ValueError, match="differs from the one asked"):
        writer.commit([*PROMPTS[:-1], replace(PROMPTS[-1], text="another text")])
    pool.writer(0, RECIPE, lead=False).write([], [])
    writer.commit(PROMPTS)
    assert pool.verify() == []


# Selection


def views(pool: Pool, upto: int) -> tuple[Any, Any, list[Any], dict[str, float]]:
    fresh = Pool.open(pool.folder)
    return (
        pool.candidates(upto),
        pool.logits("self", upto),
        [*fresh.candidates(upto)],
        {judgment.candidate_id: judgment.logit for judgment in fresh.judgments("self", upto)},
    )


def test_a_pool_is_selected_from_as_a_list_is(pool: Pool) -> None:
    for upto in range(5):  # the ranking is extended round by round
        drawn, logits, listed, said = views(pool, upto)
        assert dict(logits) == said and len(logits) == len(said)
        for keep in (1, 3):
            lazy, expected = accepted_rows(drawn, logits, 0.5, keep), accepted_rows(listed, said, 0.5, keep)
            assert ids(lazy) == ids(expected) and len(lazy)
            assert ids(balanced(lazy, keep + 1)) == ids(balanced(expected, keep + 1))
        for rule in ("extreme", "closest"):
            pairs, expected_pairs = (
                preference_pairs(*given, 0.5, 2, rule) for given in ((drawn, logits), (listed, said))
            )
            assert [(p.chosen.id, p.rejected.id) for p in pairs] == [
                (p.chosen.id, p.rejected.id) for p in expected_pairs
            ]
        assert discarded_prompts(PROMPTS, drawn, logits, 0.7) == discarded_prompts(PROMPTS, listed, said, 0.7)
        assert acceptance(drawn, logits) == acceptance(listed, said)
        held, expected_held = (KLToBase(DPO()).rows(*given) for given in ((drawn, logits), (listed, said)))
        assert [row.base.id for row in held] == [row.base.id for row in expected_held]
        members = [c.id for row in expected_held for c in KLToBase(DPO()).members(row)]
        assert ids(distinct_members(held, KLToBase(DPO()).members)) == list(dict.fromkeys(members))


def ids(candidates: Sequence[Any]) -> list[str]:
    return [candidate.id for candidate in candidates]


def test_equal_logits_are_ranked_by_the_text_of_the_id(pool: Pool) -> None:
    drawn, logits, listed, said = views(pool, 4)
    by_prompt: dict[str, list[Any]] = {}
    for candidate in listed:
        if said.get(candidate.id, -1) >= 0:
            by_prompt.setdefault(candidate.prompt.id, []).append(candidate)
    expected = [c.id for own in by_prompt.values() for c in sorted(own, key=lambda c: (-said[c.id], c.id))]
    assert sorted(ids(accepted_rows(drawn, logits, 0.5, 99))) == sorted(expected)
    for prompt in by_prompt:
        mine = [id for id in ids(accepted_rows(drawn, logits, 0.5, 99)) if id.startswith(prompt + "@")]
        assert mine == [id for id in expected if id.startswith(prompt + "@")]


@pytest.mark.parametrize("block", [8, 2**20])
def test_a_ranking_does_not_depend_on_the_blocks_it_is_sorted_in(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranking, "BLOCK", block)
    rng = np.random.default_rng(0)
    group_N, round_N, index_N = np.repeat(rng.permutation(60), 7), np.arange(420) // 210, np.tile(np.arange(7), 60)
    logit_N = np.where(rng.random(420) < 0.2, np.nan, rng.integers(-2, 3, 420))

    def ties(places: np.ndarray) -> np.ndarray:
        return ranking.tie_breaks(round_N[places], index_N[places])

    grown = ranking.Ranking()
    for count in (100, 420):
        found = grown.extend(group_N[:count], logit_N[:count], ties)
    judged = np.flatnonzero(~np.isnan(logit_N)).tolist()
    first = {group: place for place, group in reversed([*enumerate(group_N[judged].tolist())])}
    expected = sorted(judged, key=lambda n: (first[group_N[n]], -logit_N[n], f"{round_N[n]}.{index_N[n]}"))
    assert found.place_R.tolist() == expected
    assert np.array_equal(
        found.prompt_R, np.unique(np.array([first[g] for g in group_N[expected]]), return_inverse=True)[1]
    )


def test_annotations_of_earlier_rounds_count(pool: Pool) -> None:
    name = pool.candidates()[3].id
    pool.logits("human")
    pool.annotate("human", {name: 3.0})
    chosen = select(pool, "human", 0.5, 4)
    assert ids(accepted_rows(chosen.candidates, chosen.logits)) == [name]
    other = pool.candidates()[1].id
    Pool.open(pool.folder).annotate("human", {other: 4.0})
    chosen = select(pool, "human", 0.5, 4)
    assert {*ids(accepted_rows(chosen.candidates, chosen.logits))} == {name, other}


def test_a_redraw_reads_the_new_round_alone(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    for module in (candidates, columns):
        stream = module.stream_parquet

        def noted(path: Path, *rest: Any, stream: Any = stream) -> Any:
            read.append(path.parent.name)
            return stream(path, *rest)

        monkeypatch.setattr(module, "stream_parquet", noted)
    select(pool, "self", 0.5, 4)
    assert {*read} == {f"round-{round:05d}" for round in range(5)}
    read.clear()
    add_round(pool, 5)
    selection = select(pool, "self", 0.5, 5)
    rows = SFT().rows(selection.candidates, selection.logits)
    count = count_round(pool, selection, pool.logits("oracle", 5), PROMPTS, len(rows), 5)
    assert count["candidates"] == 36 and count["right"] > 0 and count["pool_rows"] == len(rows)
    assert read.count("round-00005") == 3 and {*read} <= {"round-00005", *(f"round-{n:05d}" for n in range(5))}
    assert read.count("round-00000") == 1, "the oracle's verdicts are read for the first time"


# Drawings


def test_drawings_are_read_in_any_order(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawings, "OPEN_ROUNDS", 2)
    expected = {candidate.id: candidate.drawing.tolist() for candidate in Pool.open(pool.folder).candidates()}
    shuffled = pool.candidates().take(np.random.default_rng(0).permutation(len(expected)))
    assert {c.id: c.drawing.tolist() for c in shuffled} == expected
    shuffled[::3].stage()
    assert {c.id: c.drawing.tolist() for c in shuffled} == expected, "rows that are not staged are read too"
    shuffled[0].drawing[:] = 0
    assert shuffled[0].drawing.any(), "a drawing is the caller's own"


def test_a_rank_stages_its_share_of_an_epoch_alone(pool: Pool) -> None:
    objective = DPO(per_prompt=4)
    rows = objective.rows(pool.candidates(), pool.logits("self"))
    shares: list[list[int]] = []
    for rank in range(3):
        staged: list[int] = []
        batches = [*EpochBatches(len(rows), 1, (0,), rank=rank, world=3, get_ready=staged.extend)]
        assert staged == [row for batch in batches for row in batch]
        shares.append(staged)
    stage_members(rows, np.array(shares[1]), objective.members)
    held = pool.candidates().table.drawings
    assert held._staged is not None
    wanted = {row for place in shares[1] for c in objective.members(rows[place]) for row in [c.stored.row]}
    assert {*held._staged._rows.tolist()} == wanted
    stage_members([*rows], np.array(shares[1]), objective.members)  # rows of an objective that lists them
    assert {*held._staged._rows.tolist()} == wanted
