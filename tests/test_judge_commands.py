"""The commands of the page of judges run as written, with a small model and a stub in place of the server."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from chat_stub import ChatStub
from small_runs import CHECKPOINT, POOL, TRAINER, expect_error, improve
from small_vqa import save_clip

from unigap.__main__ import main
from unigap.pool import Pool

ROOT = Path(__file__).parents[1]
QWEN, CLIP = "Qwen/Qwen2.5-VL-72B-Instruct", "openai/clip-vit-large-patch14"
SERVED = "served-Qwen2.5-VL-72B-Instruct"
SMALL = {**TRAINER, **POOL, "regrow.plan.candidates": 2, "trainer.max_epochs": 1, "trainer.limit_val_batches": 0}


@pytest.fixture(scope="module")
def runs(janus_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run in runs/sft, whose pool holds verdicts by the model, the examples, and a CLIP."""
    folder = tmp_path_factory.mktemp("judge-commands")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        flags = {
            "model.init_args.judge": "unigap.judges.RandomJudge",
            "model.init_args.external": "unigap.judges.SelfJudge",
        }
        assert improve(janus_folder, "sft", {**SMALL, **flags}) == 0
    shutil.copytree(ROOT / "docs/examples", folder / "docs/examples", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "configs/shapes", folder / "configs/shapes")
    with torch.random.fork_rng():
        torch.manual_seed(2)
        save_clip(folder / CLIP)
    return folder


@pytest.fixture
def stub(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatStub]:
    """A server that stands for the documented one, and a copy of ``runs`` as the working directory."""
    shutil.copytree(runs, tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    with ChatStub(model=QWEN) as stub:
        for path in Path("docs/examples").glob("*.yaml"):
            path.write_text(path.read_text().replace("http://localhost:8000/v1", stub.url))
        yield stub


def documented(stub: ChatStub, *marks: str) -> list[str]:
    """The words after ``unigap`` of the only command with these marks; the server's address is that of the stub."""
    page = (ROOT / "docs/judges.md").read_text(encoding="utf-8").replace("\\\n", " ")
    (line,) = [line for line in re.findall(r"^unigap (.*)$", page, re.M) if all(mark in line for mark in marks)]
    return shlex.split(line.replace("http://localhost:8000/v1", stub.url), comments=True)


def in_small(words: list[str], janus_folder: Path) -> list[str]:
    """A run in small."""
    flags = {**SMALL, CHECKPOINT: janus_folder}
    return [*words, *(word for name, value in flags.items() for word in (f"--{name}", str(value)))]


@pytest.mark.parametrize(("judge", "questions"), [("OpenAIJudge", 1), ("PhrasingsJudge", 3)])
def test_the_gap_is_measured_by_a_judge_behind_a_server(
    stub: ChatStub, janus_folder: Path, judge: str, questions: int
) -> None:
    small = ["--checkpoint", str(janus_folder), "--per_cell", "1", "--candidates", "1", "--out", "gap.json"]
    assert main([*documented(stub, f"gap --external unigap.judges.{judge}"), *small]) == 0
    figures = json.loads(Path("gap.json").read_text())
    assert questions * figures["generation"]["all"]["n"] == len(stub.received) - 1, "the question at the start"


def test_a_pool_is_judged_by_further_judges_and_a_mixture_selects(
    stub: ChatStub, janus_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ask = documented(stub, "judge ask", "OpenAIJudge")
    drawn = Pool.open("runs/sft/pool").candidates()
    stub.after = lambda count: stub.faults.extend([lambda h: h.reply(400, {})] * 999) if count == 11 else None
    expect_error(main([*ask, "--judge.concurrency", "1"]), capsys, "status 400")
    stub.after, stub.faults = lambda count: None, []
    assert main(ask) == main(ask) == 0
    # each of the three commands asks one question at the start; all images are asked about once
    assert len(stub.received) == len(drawn) + 3
    assert len(Pool.open("runs/sft/pool").logits(SERVED)) == len(drawn)
    assert main(documented(stub, "judge ask", "ClipScoreJudge")) == 0
    assert main(documented(stub, "judge scales")) == 0
    scales = json.loads(Path("runs/scales.json").read_text())
    own = torch.tensor(list(Pool.open("runs/sft/pool").logits("self").values()), dtype=torch.float64)
    assert scales["self"] == pytest.approx({"mean": own.mean().item(), "std": own.std().item(), "n": len(drawn)})
    assert main(in_small(documented(stub, "mixture.yaml"), janus_folder)) == 0
    name = "mixture-self+clip-clip-vit-large-patch14"
    mixed = Pool.open("runs/mixture/pool").logits(name)
    assert 0 < sum(logit >= 0 for logit in mixed.values()) < len(mixed), "better and worse than average"
    capsys.readouterr()
    expect_error(main([*ask[:3], "--judge", "unigap.judges.SelfJudge"]), capsys, "since it was sampled")
    expect_error(main([*ask[:3], "--judge", "unigap.judges.HumanJudge"]), capsys, "arrive later")
    expect_error(main(["judge", "scales", "runs/sft/pool", "--judges", "ann"]), capsys, "no verdict of 'ann'", "self")
    Path("mine.json").write_text("{}")
    taken = ["judge", "scales", "runs/sft/pool", "--out", "mine.json"]
    expect_error(main(taken), capsys, "'mine.json'", "stays as it is")


@pytest.mark.parametrize(
    ("mark", "name"),
    [("critique.yaml", "critique-of-5-served-Qwen2.5-VL-72B-Instruct"), ("RubricJudge", "rubric-rubric-self")],
)
def test_judges_that_reason_judge_a_run(stub: ChatStub, janus_folder: Path, mark: str, name: str) -> None:
    # the untrained model accepts nothing of its own accord
    lenient = ["--model.init_args.objective.init_args.threshold", "0.001"]
    assert main([*in_small(documented(stub, mark), janus_folder), *lenient]) == 0
    (run,) = [path for path in Path("runs").iterdir() if path.name in ("critique", "rubric")]
    pool = Pool.open(run / "pool")
    assert len(pool.logits(name)) == len(pool.candidates())
