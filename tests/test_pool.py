"""The pool: what goes in comes out, and what must not go in does not."""

from __future__ import annotations

import math
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_pools import PROMPTS, RECIPE, draw, fill, grow, judge, rows, tree

from unigap.pool import Pool
from unigap.pool.parquet import parquet_bytes, read_parquet
from unigap.pool.schemas import EARLIER, JUDGMENTS, SHARD
from unigap.pool.tables import judgments_of, merge_shards, shard_table
from unigap.records import Candidate, Judgment, Prompt


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A pool with two rounds and references."""
    grow(tmp_path / "pool")
    return tmp_path / "pool"


# Round trip


def test_what_goes_in_comes_out_sorted(folder: Path) -> None:
    pool = Pool.open(folder, "family")
    drawn = [
        candidate
        for round, prompts in ((0, PROMPTS[:2]), (1, PROMPTS))
        for p in prompts
        for candidate in draw(p, round)
    ]
    expected = sorted(drawn, key=lambda candidate: (candidate.round, candidate.prompt.id, candidate.index))
    assert pool.rounds == (0, 1)
    assert rows(pool.candidates()) == rows(expected)
    assert {judgment.candidate_id: judgment for judgment in pool.judgments("oracle")} == {
        judgment.candidate_id: judgment for judgment in judge(drawn) if judgment.judge == "oracle"
    }
    assert sorted(map(repr, pool.judgments())) == sorted(map(repr, judge(drawn)))
    assert [j.candidate_id for j in pool.judgments("self")] == [candidate.id for candidate in expected]
    assert pool.prompts() == {0: PROMPTS[:2], 1: PROMPTS}
    assert pool.recipe(1) == RECIPE
    assert pool.references("base") == {candidate.id: candidate.logp - 1 for candidate in drawn}
    assert pool.references("another model") == {}
    assert pool.verify() == []


def test_codes_are_the_callers_own(folder: Path) -> None:
    pool = Pool.open(folder)
    pool.candidates()[0].drawing[:] = 0
    assert pool.candidates()[0].drawing.any()


def test_prompts_without_candidates_are_remembered(tmp_path: Path) -> None:
    pool = Pool.create(tmp_path / "pool", "family")
    writer = pool.writer(0, RECIPE)
    writer.write([], [])
    writer.commit(PROMPTS)
    assert (pool.candidates(), pool.judgments(), pool.prompts()) == ([], [], {0: PROMPTS})


def test_upto_hides_newer_rounds(folder: Path) -> None:
    pool = Pool.open(folder)
    assert {candidate.round for candidate in pool.candidates(0)} == {0}
    assert len(pool.judgments(upto=0)) == 2 * len(pool.candidates(0))
    assert pool.prompts(0) == {0: PROMPTS[:2]}
    assert pool.candidates(-1) == []
    with pytest.raises(ValueError, match="round 2 is not in"):
        pool.candidates(2)
    with pytest.raises(ValueError, match="round 2 is not in"):
        pool.recipe(2)


texts = st.text(max_size=12)
finite = st.floats(allow_nan=False, allow_infinity=False)
prompt_sets = st.lists(
    st.builds(Prompt, st.text(min_size=1, max_size=12), texts, texts, texts, texts, texts),
    min_size=1,
    max_size=5,
    unique_by=lambda prompt: prompt.id,
)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(st.data(), prompt_sets)
def test_any_records_survive_any_split_into_shards(data: st.DataObject, prompts: list[Prompt]) -> None:
    codes = st.lists(st.integers(0, 2**31 - 1), max_size=4).map(lambda values: np.array(values, dtype=np.int32))
    candidates, judgments = [], []
    with tempfile.TemporaryDirectory() as folder:
        pool = Pool.create(Path(folder) / "pool", "family")
        writer = pool.writer(0, {})
        for prompt in prompts:
            indices = data.draw(st.sets(st.integers(0, 9), max_size=3))
            seed = st.integers(-(2**63), 2**63 - 1)
            shard = [Candidate(prompt, 0, i, data.draw(seed), data.draw(codes), data.draw(finite)) for i in indices]
            said = [
                Judgment(c.id, name, data.draw(finite)) for c in shard for name in data.draw(st.sets(texts, max_size=2))
            ]
            writer.write(shard, said, rank=data.draw(st.integers(0, 3)))
            candidates += shard
            judgments += said
        writer.commit(prompts)
        order = {c.id: (c.prompt.id, c.index) for c in candidates}
        assert rows(pool.candidates()) == rows(sorted(candidates, key=lambda c: order[c.id]))
        assert pool.judgments() == sorted(judgments, key=lambda j: (*order[j.candidate_id], j.judge))
        assert pool.prompts() == {0: prompts}
        assert pool.verify() == []


# Ranks


def test_ranks_and_order_of_writing_leave_no_trace(tmp_path: Path) -> None:
    one, three = (Pool.create(tmp_path / name, "family") for name in ("one", "three"))
    fill(one, 0)
    fill(three, 0, world_size=3)
    assert tree(one.folder) == tree(three.folder)


def test_a_prompt_drawn_by_two_ranks_is_refused(tmp_path: Path) -> None:
    pool = Pool.create(tmp_path / "pool", "family")
    writers = [pool.writer(0, RECIPE) for _ in range(2)]
    for rank, writer in enumerate(writers):
        writer.write(draw(PROMPTS[0], 0, n=2 - rank), [], rank)
    with pytest.raises(ValueError, match=r"candidate 0 of prompt '../../etc/passwd' lies in two shards"):
        writers[0].commit(PROMPTS)


# Refusals


def test_malformed_records_are_refused_by_name(tmp_path: Path) -> None:
    pool = Pool.create(tmp_path / "pool", "family")
    writer = pool.writer(0, RECIPE)
    good = draw(PROMPTS[0], 0)[0]
    name = good.id
    bad: list[tuple[list[Candidate], list[Judgment], str]] = [
        ([replace(good, logp=math.nan)], [], "logp of candidate '../../etc/passwd@0.0' is nan"),
        ([replace(good, logp=-math.inf)], [], "logp of candidate '../../etc/passwd@0.0' is -inf"),
        ([good], [Judgment(name, "self", math.nan)], "for candidate '../../etc/passwd@0.0' is nan"),
        ([good], [Judgment(name, "self", math.inf)], "for candidate '../../etc/passwd@0.0' is inf"),
        ([good], [Judgment("x@0.0", "self", 1.0)], "names candidate 'x@0.0', which is not in this shard"),
        ([], [Judgment(name, "self", 1.0)], "which is not in this shard"),
        ([good], [Judgment(name, "self", 1.0)] * 2, "two judgments by 'self'"),
        ([good, good], [], "comes twice"),
        ([replace(good, round=1)], [], "was written to round 0"),
        ([replace(good, index=-1)], [], "index of candidate"),
        ([replace(good, seed=2**63)], [], "seed of candidate"),
        ([replace(good, stored=good.drawing.astype(np.float32))], [], "codes of candidate"),
        ([replace(good, stored=good.drawing[None])], [], "codes of candidate"),
        ([replace(good, stored=good.drawing - 999)], [], "codes of candidate"),
        ([replace(good, stored=good.drawing.astype(np.int64) + 2**31)], [], "codes of candidate"),
        ([replace(good, prompt=Prompt("a", "\ud800"))], [], "text of prompt 'a' holds a lone surrogate"),
        ([replace(good, prompt=Prompt("", "a circle"))], [], "empty id"),
    ]
    for candidates, judgments, message in bad:
        with pytest.raises(ValueError) as caught:
            writer.write(candidates, judgments)
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)
    assert writer.done() == set()
    assert not list(pool.folder.glob("round-00000.partial/shard-*"))


def test_commit_wants_the_prompts_that_were_asked(tmp_path: Path) -> None:
    pool = Pool.create(tmp_path / "pool", "family")
    writer = pool.writer(0, RECIPE)
    writer.write(draw(PROMPTS[0], 0), [])
    with pytest.raises(ValueError, match=r"'../../etc/passwd'.* is not among the prompts asked"):
        writer.commit(PROMPTS[1:])
    with pytest.raises(ValueError, match=r"'../../etc/passwd'.* differs from the one asked"):
        writer.commit([replace(PROMPTS[0], text="a blue circle")])
    with pytest.raises(ValueError, match="comes twice"):
        writer.commit([PROMPTS[0], PROMPTS[0]])
    writer.commit(PROMPTS)
    for change in (lambda: writer.commit(PROMPTS), lambda: writer.write([], []), lambda: pool.writer(0, RECIPE)):
        with pytest.raises(ValueError, match=r"round 0 .*is committed"):
            change()
    with pytest.raises(ValueError, match=r"the next round .* is 1, not 2"):
        pool.writer(2, RECIPE)


def test_only_the_right_folder_opens(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="belongs to model 'family', not to 'stranger'"):
        Pool.open(folder, "stranger")
    with pytest.raises(ValueError, match="no such folder"):
        Pool.open(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="not a pool"):
        Pool.open(tmp_path)
    for taken in (folder, tmp_path, folder / "pool.json"):
        with pytest.raises(ValueError, match="not an empty folder"):
            Pool.create(taken, "family")
    (tmp_path / "empty").mkdir()
    assert Pool.create(tmp_path / "empty", "family").rounds == ()


def test_references_are_never_changed(folder: Path) -> None:
    pool = Pool.open(folder)
    name, logp = next(iter(pool.references("base").items()))
    pool.add_references("base", {name: logp})
    pool.add_references("other", {name: 5.0})
    with pytest.raises(ValueError, match="is never changed"):
        pool.add_references("base", {name: logp + 1})
    with pytest.raises(ValueError, match="is nan"):
        pool.add_references("third", {name: math.nan})
    assert (pool.references("base")[name], pool.references("other")) == (logp, {name: 5.0})
    assert pool.verify() == []


# States


def test_a_state_names_its_rounds_whatever_comes_after(folder: Path) -> None:
    pool = Pool.open(folder)
    early, late = pool.state(0), pool.state()
    assert (early["rounds"], late["rounds"], pool.state(-1)["rounds"]) == (1, 2, 0)
    assert len({early["sha256"], late["sha256"], pool.state(-1)["sha256"]}) == 3
    for state in (pool.state(-1), early, late):
        Pool.open(folder).check_state(state)
    fill(pool, 2)
    assert pool.state(1) == late
    Pool.open(folder).check_state(early)
    shutil.rmtree(folder / "round-00002")
    shutil.rmtree(folder / "round-00001")
    with pytest.raises(ValueError, match=r"round-00001 is missing: head\.json names 3 rounds"):
        Pool.open(folder).check_state(early)
    (folder / "head.json").unlink()
    Pool.open(folder).check_state(early)
    with pytest.raises(ValueError, match=r"trained on 2 rounds but .* has 1"):
        pool.check_state(late)
    with pytest.raises(ValueError, match="not the state of a pool"):
        pool.check_state({"rounds": "two", "sha256": ""})


def test_a_state_refuses_rounds_drawn_anew(folder: Path) -> None:
    pool = Pool.open(folder)
    state = pool.state()
    shutil.rmtree(folder / "round-00001")
    (folder / "head.json").unlink()
    pool = Pool.open(folder)
    fill(pool, 1, PROMPTS[:3])
    with pytest.raises(ValueError, match="are not those the checkpoint was trained on"):
        pool.check_state(state)
    assert pool.verify() == []


def test_importing_the_pool_imports_no_torch() -> None:
    code = "import sys, unigap.pool.pool; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_tables_from_before_masses_were_measured_are_read() -> None:
    new = shard_table([drawn(0)], [Judgment(drawn(0).id, "self", 1.0, 0.5)])
    old_fields = [field for field in JUDGMENTS if field.name != "mass"]
    schema = SHARD.set(SHARD.get_field_index("judgments"), pa.field("judgments", pa.list_(pa.struct(old_fields))))
    old = pa.table(
        {
            **shard_table([drawn(1)], []).drop_columns("judgments").to_pydict(),
            "judgments": [[{"candidate_id": drawn(1).id, "judge": "self", "logit": 2.0}]],
        },
        schema=schema,
    )
    _, judgments = merge_shards([new, old])
    assert judgments_of(judgments) == [Judgment(drawn(0).id, "self", 1.0, 0.5), Judgment(drawn(1).id, "self", 2.0)]
    assert [j.mass for j in judgments_of(judgments.drop_columns("mass"))] == [None, None]


@pytest.mark.parametrize("schema", [JUDGMENTS, SHARD], ids=["judgments", "shard"])
def test_files_from_before_masses_were_measured_open(schema: pa.Schema, tmp_path: Path) -> None:
    (earlier,) = [old for current, old in EARLIER if current == schema]
    path = tmp_path / "old.parquet"
    path.write_bytes(parquet_bytes(earlier.empty_table()))
    assert read_parquet(path, schema).schema == earlier
    path.write_bytes(parquet_bytes(pa.table({"candidate_id": pa.array([], pa.string())})))
    with pytest.raises(ValueError, match="has the columns 'candidate_id' or other types"):
        read_parquet(path, schema)


def drawn(index: int) -> Candidate:
    return Candidate(Prompt("p", "a ring"), 0, index, 0, np.zeros(16, np.int32), -1.0)
