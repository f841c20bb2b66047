"""People's verdicts: out of a pool as pictures and a sheet, and back into it beside the judgments of its rounds."""

from __future__ import annotations

import csv
import os
import random
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from small_pools import files, flip, tree
from small_runs import epochs, expect_error, improve

from unigap.__main__ import main
from unigap.judges import HumanJudge
from unigap.judges.base import CERTAIN
from unigap.pool import Pool
from unigap.records import Candidate, Prompt


@pytest.fixture
def pool(small_demo: Path, here: Path) -> Path:
    """A copy of a pool of several rounds, drawn by the small Janus."""
    shutil.copytree(small_demo / "pool", here / "pool")
    return here / "pool"


def sheet(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def fill_in(path: Path, rows: Sequence[dict[str, str]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)


def export(folder: str, checkpoint: Path, **options: object) -> int:
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    return main(["judge", "export", "pool", "--out", folder, "--checkpoint", str(checkpoint), *words])


def test_drawings_are_written_as_they_were_judged(pool: Path, janus_folder: Path, janus: Any) -> None:
    before = tree(pool)
    assert export("out", janus_folder, n=7) == 0
    rows = sheet(Path("out/verdicts.csv"))
    assert len(rows) == 7 and rows[0].keys() == {"image", "prompt", "verdict", "rater", "candidate_id"}, "it is blind"
    drawn = {candidate.id: candidate for candidate in Pool.open(pool).candidates()}
    for row in rows:
        candidate = drawn[row["candidate_id"]]
        assert (row["prompt"], row["verdict"], row["rater"]) == (candidate.prompt.text, "", "")
        pixels_CHW = janus.decode(torch.from_numpy(candidate.drawing).long()[None])[0]
        levels = ((pixels_CHW + 1) * 127.5).round().permute(1, 2, 0).numpy()
        shown = np.array(Image.open(Path("out") / row["image"])).astype(float)
        assert shown.shape == (256, 256, 3)
        # a batch is decoded to the last bit but one
        assert abs(shown[::8, ::8] - levels).max() <= 1 and (shown[::8, ::8] == shown[7::8, 7::8]).all()
    assert len({row["candidate_id"] for row in rows}) == 7
    assert tree(pool) == before


def test_a_sheet_is_chosen_by_its_seed_and_says_what_the_model_said_when_asked_to(
    pool: Path, janus_folder: Path
) -> None:
    options: dict[str, dict[str, object]] = {"a": {}, "b": {}, "c": {"seed": 1}}
    for name, more in options.items():
        assert export(name, janus_folder, n=5, **more) == 0
    chosen = [[row["candidate_id"] for row in sheet(Path(f"{name}/verdicts.csv"))] for name in options]
    assert chosen[0] == chosen[1] != chosen[2]
    assert export("all", janus_folder, n=100_000) == 0
    drawn = [candidate.id for candidate in Pool.open(pool).candidates()]
    listed = [row["candidate_id"] for row in sheet(Path("all/verdicts.csv"))]
    assert sorted(listed) == sorted(drawn) and listed != drawn, "the order tells nothing"


def test_a_sheet_that_is_not_blind_holds_the_models_word(pool: Path, janus_folder: Path, capsys: Any) -> None:
    # this pool was judged by chance and by the oracle
    expect_error(export("seen", janus_folder, blind="false"), capsys, "no verdict of 'self'", "blind")
    assert not Path("seen").exists()
    Pool.open(pool).annotate("self", {candidate.id: 0.5 for candidate in Pool.open(pool).candidates()})
    assert export("seen", janus_folder, n=3, blind="false") == 0
    assert [row["p_yes"] for row in sheet(Path("seen/verdicts.csv"))] == ["0.622"] * 3


def test_verdicts_come_back_beside_those_of_the_rounds(pool: Path, janus_folder: Path, capsys: Any) -> None:
    before, state, said = tree(pool), Pool.open(pool).state(), Pool.open(pool).judgments()
    assert export("out", janus_folder, n=9) == 0
    path = Path("out/verdicts.csv")
    rows = sheet(path)
    fill_in(path, [row | {"verdict": " Yes" if i % 3 else "no"} for i, row in enumerate(rows[:8])] + rows[8:])
    capsys.readouterr()
    assert main(["judge", "import", "pool", str(path)]) == 0
    assert capsys.readouterr().out == "pool: 8 verdicts by 'human'\n"

    reread = Pool.open(pool)
    expected = {row["candidate_id"]: CERTAIN if i % 3 else -CERTAIN for i, row in enumerate(rows[:8])}
    assert reread.logits("human") == expected
    everything = reread.judgments()
    assert [j for j in everything if j.judge != "human"] == said and len(everything) == len(said) + 8
    order = {candidate.id: i for i, candidate in enumerate(reread.candidates())}
    assert everything == sorted(everything, key=lambda j: (order[j.candidate_id], j.judge))
    first = [c.id for c in reread.candidates(upto=0)]
    assert {j.candidate_id for j in reread.judgments("human", upto=0)} == expected.keys() & {*first}
    # the rounds are as they were, and so is what a checkpoint remembers of them
    after = {name: data for name, data in tree(pool).items() if "annotations" not in name}
    assert after.pop("head.json") != before.pop("head.json")
    assert after == before
    assert reread.state() == state and reread.verify() == []
    assert main(["pool", "verify", "pool"]) == 0


def test_what_was_said_is_never_changed(pool: Path, capsys: Any) -> None:
    name = Pool.open(pool).candidates()[0].id
    for verdict in ("yes", "yes"):
        fill_in(Path("v.csv"), [{"candidate_id": name, "verdict": verdict}])
        assert main(["judge", "import", "pool", "v.csv", "--name", "anna"]) == 0
    written = tree(pool)
    fill_in(Path("v.csv"), [{"candidate_id": name, "verdict": "no"}])
    expect_error(main(["judge", "import", "pool", "v.csv", "--name", "anna"]), capsys, "never changed", "another name")
    expect_error(main(["judge", "import", "pool", "v.csv", "--name", "oracle"]), capsys, "'oracle'", "another name")
    fill_in(Path("v.csv"), [{"candidate_id": "a unicorn@0.0", "verdict": "no"}])
    expect_error(main(["judge", "import", "pool", "v.csv"]), capsys, "1 of the candidates", "a unicorn@0.0")
    assert tree(pool) == written
    fill_in(Path("v.csv"), [{"candidate_id": name, "verdict": "no"}])
    assert main(["judge", "import", "pool", "v.csv", "--name", "ben"]) == 0
    said = {j.judge: j.logit > 0 for j in Pool.open(pool).judgments() if j.candidate_id == name}
    assert (said["anna"], said["ben"]) == (True, False)


def test_damaged_annotations_are_found_and_refused(pool: Path, capsys: Any) -> None:
    ids = [candidate.id for candidate in Pool.open(pool).candidates()]
    for judge in ("anna", "ben"):
        Pool.open(pool).annotate(judge, {name: 1.0 for name in ids[:20]})
    rng = random.Random(0)
    for path in files(pool / "annotations"):
        whole = path.read_bytes()
        for position in rng.sample(range(len(whole)), 20):
            flip(path, position, 1 << rng.randrange(8))
            assert [line for line in Pool.open(pool).verify() if line.startswith(str(path))], (path, position)
            path.write_bytes(whole)
        flip(path, len(whole) // 2, 4)
        with pytest.raises(ValueError, match=path.name):
            Pool.open(pool).judgments()
        expect_error(main(["pool", "verify", "pool"]), capsys, path.name)
        path.unlink()
        assert any(path.name in line and "missing" in line for line in Pool.open(pool).verify())
        path.write_bytes(whole)
    (pool / "annotations" / "notes.txt").write_text("mine")
    assert any("notes.txt" in line for line in Pool.open(pool).verify())


@pytest.mark.parametrize("k", range(9))
def test_verdicts_that_were_stored_half_are_not_there(pool: Path, monkeypatch: pytest.MonkeyPatch, k: int) -> None:
    class Killed(BaseException):
        pass

    renamed: list[object] = []
    real = os.replace

    def dies(*paths: Any) -> None:
        if len(renamed) == k // 2 and k % 2 == 0:
            raise Killed
        real(*paths)
        renamed.append(paths)
        if len(renamed) == k // 2 + 1 and k % 2:
            raise Killed

    said = Pool.open(pool).judgments()
    ids = [candidate.id for candidate in Pool.open(pool).candidates()]
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", dies)
        try:
            Pool.open(pool).annotate("human", {name: 1.0 for name in ids})
        except Killed:
            assert k < 8, "four renames: the manifest, the table, the manifest that names it, the head of the pool"
    assert len(Pool.open(pool).judgments()) - len(said) == (len(ids) if k >= 5 else 0)
    assert Pool.open(pool).verify() == []
    Pool.open(pool).annotate("human", {name: 1.0 for name in ids})
    assert len(Pool.open(pool).judgments("human")) == len(ids) and Pool.open(pool).verify() == []


# Training on what people said


def test_what_nobody_rated_is_not_trained_on(janus_folder: Path, here: Path, capsys: Any) -> None:
    judge = "model.init_args.judge"
    flags: dict[str, object] = {"data.pool": "pool", "data.batch_size": 1, "trainer.limit_train_batches": "null"}
    chance = {judge: "unigap.judges.RandomJudge", "model.init_args.predict_plan.candidates": 2}
    assert improve(janus_folder, "sft", {**flags, **chance}, verb="predict") == 0
    ids = [candidate.id for candidate in Pool.open("pool").candidates()]
    said = {name: ("yes", "yes", "no")[i % 3] for i, name in enumerate(ids[:13])}
    fill_in(Path("v.csv"), [{"candidate_id": name, "verdict": said.get(name, "")} for name in ids])

    people = {**flags, judge: "unigap.judges.HumanJudge"}
    expect_error(
        improve(janus_folder, "sft", people), capsys, "waits for the verdicts of 'human' on 30", "judge export"
    )
    assert main(["judge", "import", "pool", "v.csv"]) == 0
    assert improve(janus_folder, "sft", people) == 0
    accepted = sorted(name for name, verdict in said.items() if verdict == "yes")
    assert [sorted(rows) for rows in epochs(here / "runs/sft")] == [accepted, accepted]
    logs = [sheet(path) for path in sorted(here.glob("runs/sft/logs/version_*/metrics.csv"))]
    (grown,) = (row for log in logs for row in log if row.get("pool/candidates"))
    counts = {name: float(grown[f"pool/{name}"]) for name in ("candidates", "judged", "accepted", "pool_rows")}
    assert counts == {"candidates": 30, "judged": 13, "accepted": 9, "pool_rows": 9}
    assert float(grown["pool/truly_right"]) <= 9, "the oracle looked at all of them"


def test_people_select_in_rounds(janus_folder: Path, here: Path, capsys: Any) -> None:
    people: dict[str, object] = {"model.init_args.judge": "unigap.judges.HumanJudge", "regrow.plan.candidates": 2}
    people |= {"data.batch_size": 1, "trainer.limit_train_batches": "null", "resume": "auto"}
    people |= {"trainer.limit_val_batches": 0, "data.exam_pictures": 0}
    pool, prompts = "runs/c_sft/pool", {}
    for number in range(2):
        waits = f"round {number} waits for the verdicts of 'human'"
        expect_error(improve(janus_folder, "c_sft", people), capsys, waits, "--resume auto")
        assert Pool.open(pool).rounds == tuple(range(number + 1))
        words = ["judge", "export", pool, "--out", f"sheet-{number}", "--checkpoint", str(janus_folder)]
        assert main(words) == 0
        rows = sheet(Path(f"sheet-{number}/verdicts.csv"))
        asked = {c.id: c.prompt.id for c in Pool.open(pool).candidates() if c.round == number}
        judged = {judgment.candidate_id for judgment in Pool.open(pool).judgments("human")}
        drawn = {candidate.id for candidate in Pool.open(pool).candidates()}
        assert {row["candidate_id"] for row in rows} == drawn - judged, "only what nobody has judged"
        # the first two thirds of the prompts are judged, every second of these well
        names = list(dict.fromkeys(asked.values()))
        said = {name: ("yes", "no")[i % 2] for i, name in enumerate(names[: 2 * len(names) // 3])}
        prompts[number] = (names, said)
        fill_in(Path("v.csv"), [row | {"verdict": said.get(asked.get(row["candidate_id"], ""), "")} for row in rows])
        assert main(["judge", "import", pool, "v.csv"]) == 0
    assert improve(janus_folder, "c_sft", people) == 0
    names, said = prompts[0]
    assert prompts[1][0] == [name for name in names if said.get(name) == "no"], "who waits is not drawn for again"
    accepted = [{name for name, verdict in told.items() if verdict == "yes"} for _, told in prompts.values()]
    trained = [{row.rpartition("@")[0] for row in rows} for rows in epochs(here / "runs/c_sft")]
    assert trained == [accepted[0], accepted[0] | accepted[1]]
    assert main(["judge", "export", pool, "--out", "rest", "--checkpoint", str(janus_folder)]) == 0
    rest = len(sheet(Path("rest/verdicts.csv")))
    assert rest == sum(2 * (len(names) - len(said)) for names, said in prompts.values())
    check_exported(pool, janus_folder, accepted[0] | accepted[1], rest)


def check_exported(pool: str, checkpoint: Path, accepted: set[str], unjudged: int) -> None:
    """The data set of a pool in which people select is theirs, not the oracle's."""
    assert main(["export", "pool", pool, "--out", "hub", "--checkpoint", str(checkpoint)]) == 0
    tables = [pq.read_table(path).to_pylist() for path in sorted(Path("hub/data").iterdir())]
    rows = {row["candidate_id"]: row["accepted"] for table in tables for row in table}
    assert {name.rpartition("@")[0] for name, verdict in rows.items() if verdict} == accepted
    assert list(rows.values()).count(None) == unjudged > 0
    card = Path("hub/README.md").read_text(encoding="utf-8")
    assert "| selecting judge | `human`," in card and "`oracle`" in card
    assert f", {list(rows.values()).count(True)} accepted, {unjudged} not judged |" in card


def test_people_are_not_asked_while_drawing(janus_folder: Path, here: Path, capsys: Any) -> None:
    human = "unigap.judges.HumanJudge"
    expect_error(
        improve(janus_folder, "sft", {"model.init_args.external": human}), capsys, "'human' arrive later", "agreement"
    )
    waves = {"model.init_args.judge": human, "regrow.allocation": "unigap.loop.allocation.UntilAccepted"}
    expect_error(improve(janus_folder, "sft", waves), capsys, "UntilAccepted asks the judge", "answers later")
    assert not list(here.rglob("*.parquet"))


# Reading sheets


def votes(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def candidates(*names: str) -> list[Candidate]:
    codes = np.zeros(16, dtype=np.int32)
    return [Candidate(Prompt(name, "a ring"), 0, 0, 0, codes, -1.0) for name in names]


def test_the_majority_of_the_raters_decides(tmp_path: Path, janus: Any) -> None:
    rows = ["p,yes,a@0.0", "q,Yes ,a@0.0", "r,no,a@0.0", "p,no,b@0.0", "q,NO,b@0.0", "r,yes,b@0.0", "p,yes,c@0.0"]
    text = "\n".join(["\ufeffrater,verdict,candidate_id", *rows, "p,,d@0.0", ""])
    judge = HumanJudge(votes(tmp_path / "v.csv", text))
    assert judge.verdicts == {"a@0.0": True, "b@0.0": False, "c@0.0": True}
    said = judge.logits(janus, candidates("b", "a"), torch.zeros(2, 3, 32, 32))
    assert said.tolist() == [-CERTAIN, CERTAIN] and judge.name == "human"
    with pytest.raises(ValueError, match=r"1 of 2 images are not rated, first 'd@0.0'"):
        judge.logits(janus, candidates("a", "d"), torch.zeros(2, 3, 32, 32))


def test_ties_are_refused_or_counted_as_named(tmp_path: Path) -> None:
    path = votes(tmp_path / "v.csv", "candidate_id,verdict,rater\nx,yes,p\nx,no,q\n")
    with pytest.raises(ValueError, match="'x' has as many yes as no"):
        HumanJudge(path)
    assert HumanJudge(path, "yes").verdicts == {"x": True}
    assert HumanJudge(path, "no").verdicts == {"x": False}
    assert HumanJudge(path, "yes").recipe != HumanJudge(path, "no").recipe


def test_a_sheet_that_changes_is_another_judge(tmp_path: Path) -> None:
    first = HumanJudge(votes(tmp_path / "v.csv", "candidate_id,verdict\nx,yes\n")).recipe
    assert HumanJudge(votes(tmp_path / "w.csv", "candidate_id,verdict\nx,yes\n")).recipe == first
    assert HumanJudge(votes(tmp_path / "v.csv", "candidate_id,verdict\nx,no\n")).recipe != first


# Agreement


def test_agreement_of_the_judges_of_a_pool(pool: Path, capsys: Any) -> None:
    source = Pool.open(pool)
    oracle = source.logits("oracle")
    ids = list(oracle)
    source.annotate("human", {name: oracle[name] for name in ids[:40]})
    source.annotate("contrary", {name: -oracle[name] for name in ids[20:]})
    assert main(["judge", "agreement", "pool", "--judges", "oracle,human"]) == 0
    printed = capsys.readouterr().out
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in printed.splitlines() if "│" in line]
    found = {row[0]: row[1:] for row in rows}
    assert found["oracle"][0] == str(len(ids)) and found["human"][0] == "40"
    agree = re.fullmatch(r"100\.0 \[(\d+\.\d), 100\.0\]", found["oracle / human"][1])
    assert found["oracle / human"][0] == "40" and agree and 50 < float(agree[1]) < 100, "forty are no proof"
    assert "contrary" not in printed and "all" not in found

    assert main(["judge", "agreement", "pool"]) == 0
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in capsys.readouterr().out.splitlines()]
    found = {row[0]: row[1:] for row in rows if row}
    assert found["contrary / human"][0] == "20" and found["contrary / human"][1].startswith("0.0 [0.0, ")
    assert found["contrary / oracle"][0] == str(len(ids) - 20)
    assert found["all"][0] == "20" and len(found) >= 4 + 6 + 1
