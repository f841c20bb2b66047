"""The commands of docs/bench.md run as written, on small random networks in folders with the published names."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from chat_stub import ChatStub
from small_instruments import save_blip, save_depth, save_detr, save_mask2former, save_owlv2
from small_vqa import save_clip, save_llava
from test_bench import DSG, GENEVAL, TIFA, WISE, same_by_score
from test_docs import DOCS, commands

from unigap.__main__ import main
from unigap.pool import Pool
from unigap.prompt_sets import wise

NETWORKS: dict[str, Callable[[Path], None]] = {
    "facebook/mask2former-swin-small-coco-instance": save_mask2former,
    "openai/clip-vit-large-patch14": save_clip,
    "PekingU/rtdetr_r50vd": save_detr,
    "Salesforce/blip-vqa-capfilt-large": save_blip,
    "google/owlv2-base-patch16-ensemble": save_owlv2,
    "Intel/dpt-hybrid-midas": save_depth,
    "openai/clip-vit-base-patch32": save_clip,
    "Qwen/Qwen2.5-VL-7B-Instruct": save_llava,
}
SOURCES = {
    "geneval": "geneval:evaluation_metadata.jsonl",
    "compbench": "t2i-compbench:t2i_compbench",
    "dsg": "dsg:dsg-1k-anns.csv",
    "dpg": "dpg:dpg_bench.csv",
    "tifa": "tifa:tifa_v1.0_question_answers.json",
    "wise": "wise:WISE/data",
}
SERVER, SERVED = "http://localhost:8000/v1", "Qwen/Qwen2.5-VL-72B-Instruct"


@pytest.fixture
def at_home(here: Path, janus_folder: Path) -> Path:
    """A working directory with every checkpoint and prompt set that the page names."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for name, save in NETWORKS.items():
            (here / name).mkdir(parents=True)
            save(here / name)
    (here / "deepseek-community").mkdir()
    (here / "deepseek-community/Janus-Pro-1B").symlink_to(janus_folder)
    Path("evaluation_metadata.jsonl").write_text(GENEVAL)
    Path("dsg-1k-anns.csv").write_text(DSG)
    Path("dpg_bench.csv").write_text(DSG)
    Path("tifa_v1.0_question_answers.json").write_text(json.dumps(TIFA))
    Path("t2i_compbench").mkdir()
    for category, text in {"numeracy": "two circles\n", "non_spatial": "a red circle\n"}.items():
        Path("t2i_compbench", f"{category}_val.txt").write_text(text)
    Path("WISE/data").mkdir(parents=True)
    Path("WISE/data", wise.FILES[0]).write_text(json.dumps(WISE))
    return here


def test_the_page_is_run_as_written(at_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("scipy", reason="transformers builds Mask2Former with scipy")
    with ChatStub(model=SERVED) as stub:
        for command in commands(DOCS / "bench.md"):
            if not command.startswith(("bench NAME", "score", "export")):
                status = main(shlex.split(command.replace(SERVER, stub.url)))
                assert status == 0, (command, capsys.readouterr().err)
    judges = {judgment.judge for judgment in Pool.open("runs/bench/geneval/pool").judgments()}
    measured = {"geneval-masks-mask2former-swin-small-coco-instance", "geneval-boxes-rtdetr_r50vd"}
    assert judges == {"self", *measured}
    for name, source in SOURCES.items():
        more = ["--as_published_dpg"] if name == "dpg" else []
        scores = same_by_score(name, source, *more, folder=f"runs/bench/{name}")
        assert all(0 <= figure["value"] <= 1 for figure in scores.values()), (name, scores)
    assert not Path("runs/bench/geneval-boxes/pool").exists()
