"""Folders for the Hugging Face hub: a pool that `datasets` loads, a model that loads, cards that state the facts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
import yaml
from documented import documented
from safetensors.torch import load_file
from small_emu3 import save_small_emu3
from small_runs import FICKLE, expect_error, improve, state, tree
from small_showo import small_showo

from unigap.__main__ import main
from unigap.cli.commands import export_pool as pool_export
from unigap.files.images import to_image
from unigap.judges import AlwaysYesJudge, RandomJudge
from unigap.loop.plan import RoundPlan
from unigap.loop.round import run_round
from unigap.models.families import load_model
from unigap.models.janus import Janus
from unigap.pool import Pool
from unigap.records import Prompt

LORA = {"model.init_args.model.init_args.lora_rank": 4, "model.init_args.lr": 0.01, "model.init_args.warmup_steps": 0}


def read_card(folder: Path) -> tuple[dict[str, Any], str]:
    """The header and the text of a card."""
    _, head, text = (folder / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    return yaml.safe_load(head), text


def export_pool(pool: Path, checkpoint: Path, out: str, *more: str) -> int:
    return main(["export", "pool", str(pool), "--out", out, "--checkpoint", str(checkpoint), *more])


def test_the_commands_of_the_page(trained: Path, janus_folder: Path, here: Path) -> None:
    (here / "runs").symlink_to(trained.parent)
    assert main([*documented("export", "pool"), "--checkpoint", str(janus_folder)]) == 0
    assert main(documented("export", "model")) == 0
    assert sorted(path.name for path in here.iterdir()) == ["my-model", "my-pool", "runs"]
    assert read_card(Path("my-pool"))[0]["license"] == "cc-by-4.0"
    assert read_card(Path("my-model"))[0]["license"] == "apache-2.0"


def test_a_pool_becomes_a_data_set(
    small_demo: Path,
    janus_folder: Path,
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(pool_export, "ROWS_PER_FILE", 20)
    assert export_pool(small_demo / "pool", janus_folder, "hub", "--license", "cc-by-4.0") == 0
    assert capsys.readouterr().out == "data set: hub\n"
    rows = datasets.load_dataset("hub", split="train", cache_dir=str(here / "cache"))
    pool, janus = Pool.open(small_demo / "pool"), Janus(str(janus_folder))
    candidates = pool.candidates()
    assert len(list(Path("hub/data").iterdir())) == -(-len(candidates) // 20) > 1
    said = {(judgment.candidate_id, judgment.judge): judgment for judgment in pool.judgments()}
    assert rows["candidate_id"][:] == [candidate.id for candidate in candidates]
    for candidate, row in zip(candidates, rows, strict=True):
        prompt = candidate.prompt
        assert (row["prompt"], row["category"], row["difficulty"]) == (prompt.text, prompt.category, prompt.difficulty)
        assert (row["round"], row["seed"]) == (candidate.round, candidate.seed)
        assert row["codes"] == candidate.codes.tolist()
        expected = {judge: said[candidate.id, judge].p_yes for judge in ("random", "oracle")}
        assert row["verdicts"] == expected and row["accepted"] == (expected["random"] >= 0.5)
    drawn = janus.decode(torch.tensor(np.stack([candidate.codes for candidate in candidates])).long())
    for row, pixels_CHW in zip(rows, drawn, strict=True):
        # decoded in other batches, which rounds otherwise
        apart = np.array(row["image"]).astype(int) - np.array(to_image(pixels_CHW))
        assert np.abs(apart).max() <= 1

    head, text = read_card(Path("hub"))
    assert head["license"] == "cc-by-4.0" and head["task_categories"][0] == "text-to-image"
    accepted = sum(said[candidate.id, "random"].logit >= 0 for candidate in candidates)
    summary = json.loads((small_demo / "summary.json").read_text())
    first = summary["rounds"][0]
    for fact in (
        f"| images drawn by | `{janus_folder}` |",
        "| judge that selects | `random`, accepting at a probability of yes of 0.5 or more |",
        "| judges that only measure | `oracle` |",
        f"| images | {len(candidates)}, of which {accepted} accepted |",
        "| data licence | cc-by-4.0 |",
        f"| pool digest | `{pool.state()['sha256']}` |",
        f"| 0 | {first['prompts']} | {first['candidates']} | {first['accepted']} |",
    ):
        assert fact in text, fact
    yes, low, high = figure(text, "Yes rate")
    assert yes == pytest.approx(100 * accepted / len(candidates), abs=0.06) and low < yes < high


@pytest.mark.parametrize("family", ["show-o", "emu3"])
def test_a_pool_of_another_family_becomes_one_too(
    janus_folder: Path, here: Path, capsys: pytest.CaptureFixture[str], family: str
) -> None:
    small_showo().save(Path("show-o")) if family == "show-o" else save_small_emu3(Path("emu3"))
    model = load_model(family)
    pool, prompts = Pool.create("pool", model.codebook_digest()), [Prompt("a", "a ring"), Prompt("b", "two circles")]
    run_round(model, prompts, (RandomJudge(), AlwaysYesJudge()), pool, 0, RoundPlan(2))
    expect_error(export_pool(Path("pool"), janus_folder, "hub"), capsys, "belongs to model", "use that model")
    assert not Path("hub").exists()
    assert export_pool(Path("pool"), Path(family), "hub") == 0
    rows = datasets.load_dataset("hub", split="train", cache_dir=str(here / "cache"))
    drawn = pool.candidates()
    assert rows["codes"][:] == [candidate.codes.tolist() for candidate in drawn] and len(drawn) == 4
    for row, pixels_CHW in zip(rows, model.decode(torch.tensor(rows["codes"][:]).long()), strict=True):
        apart = np.array(row["image"]).astype(int) - np.array(to_image(pixels_CHW))
        assert np.abs(apart).max() <= 1
    assert f"| images drawn by | `{family}` |" in read_card(Path("hub"))[1]


def figure(card: str, metric: str) -> tuple[float, float, float]:
    """A metric of a card: its value and the ends of its interval."""
    line = next(line for line in card.splitlines() if line.startswith(f"| {metric} |"))
    _, _, value, interval, *_ = (part.strip() for part in line.split("|"))
    low, high = interval.replace("\N{MINUS SIGN}", "-").split(" to ")
    return float(value.split()[0]), float(low), float(high)


def test_without_a_licence_the_card_says_so(small_demo: Path, janus_folder: Path, here: Path) -> None:
    assert export_pool(small_demo / "pool", janus_folder, "hub") == 0
    head, text = read_card(Path("hub"))
    assert head["license"] == "unknown" and "| data licence | none was given: ask before you use it |" in text


def test_what_lies_there_is_never_written_over(
    small_demo: Path, janus_folder: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("mine").mkdir()
    Path("mine/notes.txt").write_text("mine")
    expect_error(export_pool(small_demo / "pool", janus_folder, "mine"), capsys, "mine is not empty")
    assert tree(here) == {"mine/notes.txt": b"mine"}


@pytest.fixture(scope="module")
def trained(janus_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that trained an adapter."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert improve(janus_folder, "sft", {**FICKLE, **LORA}) == 0
    return folder / "runs/sft"


def test_a_run_becomes_a_merged_checkpoint(trained: Path, janus_folder: Path, here: Path) -> None:
    assert main(["export", "model", str(trained), "--out", "merged", "--license", "apache-2.0"]) == 0
    adapted = Janus(str(janus_folder), lora_rank=4)
    names = {name.removeprefix("model."): tensor for name, tensor in state(trained / "checkpoints/last.ckpt").items()}
    adapted.load_state_dict(names)
    merged, untrained = Janus("merged"), Janus(str(janus_folder))
    prompt = adapted.encode_prompt(["a red circle"])
    codes_BM = torch.arange(adapted.image_tokens)[None] % adapted.n_codes
    with torch.no_grad():
        ours, theirs, before = (m.eval().image_logps(prompt, codes_BM) for m in (merged, adapted, untrained))
    assert torch.allclose(ours, theirs, atol=1e-5) and not torch.allclose(ours, before, atol=1e-3)

    head, text = read_card(Path("merged"))
    assert head["license"] == "apache-2.0" and head["library_name"] == "transformers"
    last = json.loads((trained / "curves.json").read_text())[-1]
    value, low, high = figure(text, "Non-unification")
    measured = [100 * last[f"non_unification{end}"] for end in ("", "_low", "_high")]
    assert [value, low, high] == pytest.approx(measured, abs=0.06)
    for fact in (
        f"Base model: `{janus_folder}`",
        "| judge that selected the training data | `RandomJudge` |",
        "| rounds of drawing and judging | 1 |",
        "| epochs | 2 |",
        "| licence | apache-2.0 |",
        "| model.lr | 0.01 |",
        "| model.model.lora_rank | 4 |",
    ):
        assert fact in text, fact
    assert Path("merged/unigap.yaml").read_bytes() == (trained / "checkpoints/config.yaml").read_bytes()


def test_a_run_becomes_an_adapter(trained: Path, janus_folder: Path, here: Path) -> None:
    assert main(["export", "model", str(trained / "checkpoints/last.ckpt"), "--out", "adapter", "--adapter"]) == 0
    head, _ = read_card(Path("adapter"))
    assert head["library_name"] == "peft"
    written = load_file("adapter/adapter_model.safetensors")
    trained_names = {name: t for name, t in state(trained / "checkpoints/last.ckpt").items() if ".lora_" in name}
    assert len(written) == len(trained_names) == 2 * 2 * 7
    part = "layers.0.self_attn.q_proj.lora_B"
    ours, theirs = (next(t for name, t in tensors.items() if part in name) for tensors in (written, trained_names))
    assert torch.equal(ours, theirs) and ours.count_nonzero()


def test_a_run_without_an_adapter_exports_none(
    janus_folder: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert improve(janus_folder, "sft", FICKLE) == 0
    command = ["export", "model", "runs/sft", "--out", "adapter", "--adapter"]
    expect_error(main(command), capsys, "no LoRA adapter")
    assert not Path("adapter").exists() and not list(here.glob(".*"))
