"""The guard by the user's door: it fires when the model's own judge gets worse, acts as told, and disturbs nothing."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from small_runs import CHECKPOINT, CONFIGS, FICKLE, POOL, TRAINER, epochs, expect_error, improve, same, state

from unigap.__main__ import main
from unigap.callbacks import Guard
from unigap.callbacks.guard_watches import WATCHES, absent_figures, chosen_watches
from unigap.evaluation.probe_sources import CaptionedDataset, CaptionedFile, ShapesPairs
from unigap.loop.plan import RoundPlan
from unigap.models.janus import Janus
from unigap.pool import Pool
from unigap.records import DrawingFormat
from unigap.stages import RedrawSchedule
from unigap.worlds.shapes.grammar import parse
from unigap.worlds.shapes.scenes import describes, imagine, render

LAST = Path("runs/guarded/checkpoints/last.ckpt")
FIGURES = [name for name in WATCHES if name != "redrawn"]  # guarded.yaml redraws discarded prompts only
SMALL = {"n": 100, "tolerances": dict.fromkeys(FIGURES, 0.0)}
# an untrained judge that is trained this hard is wrong with certainty after a step or two
SPOILT = {"model.init_args.lr": 0.05, "model.init_args.warmup_steps": 0}
LORA = {f"model.init_args.model.init_args.lora_{k}": v for k, v in {"rank": 2, "dropout": 0.3}.items()}
TEXTS = ["a red circle", "two green squares", "a blue ring", "a small red ring", "three yellow triangles", "a square"]


def tolerant(tolerance: float) -> dict[str, Any]:
    return {**SMALL, "tolerances": dict.fromkeys(FIGURES, tolerance)}


def guarded(checkpoint: Path, guard: Mapping[str, Any] | None, flags: Mapping[str, object] | None = None) -> int:
    """Runs guarded.yaml in small with other options of its guard, or without one; returns the exit status."""
    config = yaml.safe_load((CONFIGS / "guarded.yaml").read_text())
    callbacks = config["trainer"]["callbacks"]
    assert callbacks[0]["class_path"] == "unigap.callbacks.Guard"
    config["trainer"]["callbacks"] = ([callbacks[0] | {"init_args": guard}] if guard else []) + callbacks[1:]
    Path("config.yaml").write_text(yaml.safe_dump(config))
    every = {**TRAINER, **POOL, **FICKLE, CHECKPOINT: checkpoint, **(flags or {})}
    return main(["fit", "--config", "config.yaml", *(word for k, v in every.items() for word in (f"--{k}", str(v)))])


def weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    return {f"model.{name}": tensor for name, tensor in Janus(str(checkpoint)).trainable_state().items()}


def guard_state(checkpoint: Path = LAST) -> dict[str, Any]:
    (found,) = (s for k, s in torch.load(checkpoint, weights_only=True)["callbacks"].items() if k.startswith("Guard"))
    return found


def test_a_spoilt_judge_stops_the_run(janus_folder: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert guarded(janus_folder, {**SMALL, "action": "stop"}, {**SPOILT, "trainer.max_epochs": 3}) == 0
    assert len(epochs(here / "runs/guarded")) == 1
    assert "worse than at their best validation" in "".join(capsys.readouterr())
    (row,) = guard_state()["history"]
    assert row["harms"] and not row["sound"]
    for name in row["harms"]:
        change = row["figures"][name]["change"]
        assert change["low"] > 0 or change["high"] < 0
    logged = (here / "runs/guarded/logs/version_0/metrics.csv").read_text()
    ends = ("", "_change", "_from_best")
    assert all(f"guard/{name}{end}" in logged for name in FIGURES for end in ends)
    assert "guard/sound" in logged


@pytest.fixture(scope="module")
def watched(janus_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The working directory of a run whose guard only warns."""
    folder = tmp_path_factory.mktemp("watched")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert guarded(janus_folder, {**SMALL, "action": "warn"}, LORA) == 0
    return folder


def test_the_guard_looks_at_the_images_of_the_start(watched: Path) -> None:
    found = guard_state(watched / LAST)
    assert found["records"].keys() == set(WATCHES) - {"redrawn"}
    for row in found["history"]:
        for name, figure in row["figures"].items():
            units, start = found["records"][name]["start"]
            assert len(units) == figure["change"]["n"] >= 12
            assert figure["now"] - figure["change"]["value"] == pytest.approx(start.mean().item(), abs=1e-6)
    spread, entropy = (found["records"][name]["start"][1] for name in ("spread", "code_entropy"))
    assert (spread > 0).all() and (entropy > 0).all()


def test_warning_goes_on_and_a_tolerant_guard_stays_silent(
    janus_folder: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert guarded(janus_folder, {**SMALL, "action": "warn"}, SPOILT) == 0
    assert "guard: judge or images are worse" in "".join(capsys.readouterr())
    assert len(epochs(here / "runs/guarded")) == 2 and not guard_state()["history"][0]["sound"]
    elsewhere = {"run": "other"}
    assert guarded(janus_folder, {**tolerant(0.999), "action": "stop"}, {**SPOILT, **elsewhere}) == 0
    assert "guard:" not in "".join(capsys.readouterr())
    assert [row["sound"] for row in guard_state(Path("other/checkpoints/last.ckpt"))["history"]] == [True, True]


def test_rolling_back_leaves_the_last_sound_weights(janus_folder: Path, here: Path) -> None:
    assert guarded(janus_folder, {**SMALL, "action": "rollback"}, SPOILT) == 0
    assert [row["sound"] for row in guard_state()["history"]] == [False, False]
    assert same(state(LAST), weights(janus_folder)), "no epoch was sound: these are the weights of the start"
    assert not any(len(record["since"][0]) for record in guard_state()["records"].values()), "bad epochs are forgotten"


def test_a_sound_epoch_is_what_is_gone_back_to(janus_folder: Path, here: Path) -> None:
    # the first epoch changes the judge less than is tolerated, the second one more
    flags = {**SPOILT, "trainer.max_epochs": 1, "model.init_args.lr": 1e-6}
    assert guarded(janus_folder, {**tolerant(0.2), "action": "rollback"}, flags) == 0
    sound = state(LAST)
    assert guard_state()["history"][0]["sound"] and not same(sound, weights(janus_folder))
    checkpoint = torch.load(LAST, weights_only=True)
    for group in checkpoint["optimizer_states"][0]["param_groups"]:
        group["lr"] = group["initial_lr"] = 0.5
    checkpoint["lr_schedulers"][0]["base_lrs"] = [0.5]
    torch.save(checkpoint, "steep.ckpt")
    flags |= {"trainer.max_epochs": 2, "ckpt_path": "steep.ckpt"}
    assert guarded(janus_folder, {**tolerant(0.2), "action": "rollback"}, flags) == 0
    assert [row["sound"] for row in guard_state()["history"]] == [True, False]
    assert same(state(LAST), sound)
    assert not torch.load(LAST, weights_only=True)["optimizer_states"][0]["state"], "no moments lead astray again"


def test_watching_changes_nothing(watched: Path, janus_folder: Path, here: Path) -> None:
    assert guarded(janus_folder, None, LORA) == 0
    assert same(state(watched / LAST), state(LAST))
    rows = Path("runs/guarded/rows.jsonl")
    assert (watched / rows).read_text() == rows.read_text()


def test_a_resumed_guard_is_the_uninterrupted_one(
    janus_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    guard = {**SMALL, "action": "rollback"}
    found = []
    for name, runs in (("whole", ({},)), ("parts", ({"trainer.max_epochs": 1}, {"ckpt_path": LAST}))):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        for flags in runs:
            assert guarded(janus_folder, guard, {**SPOILT, "trainer.max_epochs": 3, **flags}) == 0
        found.append((state(LAST), guard_state()))
    (ours, kept), (theirs, expected) = found
    assert same(ours, theirs) and kept["history"] == expected["history"]
    assert [row["sound"] for row in kept["history"]] == [False, False, False]
    for name, record in expected["records"].items():
        for moment in ("start", "best", "since"):
            assert all(map(torch.equal, kept["records"][name][moment], record[moment])), (name, moment)
    assert same(kept["sound_weights"], expected["sound_weights"])

    capsys.readouterr()
    flags = {**SPOILT, "trainer.max_epochs": 4, "ckpt_path": LAST}
    expect_error(
        guarded(janus_folder, {**guard, "n": 50}, flags), capsys, "--trainer.callbacks.Guard.n was 100", "is 50;"
    )


@pytest.fixture
def captioned(here: Path) -> Path:
    """A JSONL file of renders with captions, which is a folder of images for ``datasets`` too."""
    rng = random.Random(0)
    lines = []
    for i, text in enumerate(TEXTS * 2):
        pixels = ((render(imagine(parse(text), rng)) + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
        Image.fromarray(np.ascontiguousarray(pixels)).crop((0, 0, 32, 24 if i == 3 else 32)).save(f"{i}.png")
        lines.append(json.dumps({"image": f"{i}.png", "file_name": f"{i}.png", "caption": text}))
    Path("metadata.jsonl").write_text("\n".join(lines))
    return here / "metadata.jsonl"


def test_pairs_of_the_users_own(
    captioned: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path_factory.mktemp("cache")))
    sources = (CaptionedFile(str(captioned), side=40), CaptionedDataset(str(captioned.parent), side=40))
    exams = [source.load(8) for source in sources]
    for source, exam in zip(sources, exams, strict=True):
        assert exam.pixels_BCHW.shape == (8, 3, 40, 40) and exam.pixels_BCHW.abs().max() <= 1
        assert exam.truth_B.tolist() == [claim == p.text for claim, p in zip(exam.claims, exam.prompts, strict=True)]
        assert exam.truth_B.sum() == 4
        again = source.load(8)
        assert again.claims == exam.claims and torch.equal(again.pixels_BCHW, exam.pixels_BCHW)
    assert exams[0].claims == exams[1].claims and torch.equal(exams[0].pixels_BCHW, exams[1].pixels_BCHW)
    assert CaptionedFile(str(captioned), seed=1).load(8).claims != exams[0].claims


def test_the_embedded_worlds_pairs_are_balanced_and_true_to_the_truth() -> None:
    exam = ShapesPairs().load(60)
    assert 0.4 < exam.truth_B.float().mean() < 0.6
    assert all(prompt.split == "validation" for prompt in exam.prompts)
    assert not describes(parse("a red circle"), imagine(parse("a blue circle"), random.Random(0)))


def test_a_run_is_guarded_by_the_users_pairs(janus_folder: Path, captioned: Path) -> None:
    pairs = {
        "class_path": "unigap.evaluation.probe_sources.CaptionedFile",
        "init_args": {"path": str(captioned), "side": 32},
    }
    assert guarded(janus_folder, {"action": "warn", "n": 12, "pairs": pairs}) == 0
    assert [row["epoch"] for row in guard_state()["history"]] == [1, 2]


MISTAKES = {
    "missing.jsonl": (None, "no such file"),
    "broken.jsonl": ("{", "line 1: not JSON"),
    "bare.jsonl": ('{"image": "0.png"}', "line 1: 'caption' must be a non-empty string, got nothing"),
    "nothing.jsonl": ('{"image": "no.png", "caption": "x"}\n' * 4, "no.png': no such file"),
    "text.jsonl": (
        '{"image": "metadata.jsonl", "caption": "x"}\n' * 4,
        "cannot be read, its format is another; save it as PNG, JPEG",
    ),
    "same.jsonl": ('{"image": "0.png", "caption": "x"}\n' * 4, "nothing would mismatch"),
    "few.jsonl": ('{"image": "0.png", "caption": "x"}\n' * 3, "holds 3 images, 4 are asked for"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_pairs_that_cannot_be_used_are_refused(name: str, captioned: Path) -> None:
    content, told = MISTAKES[name]
    if content:
        Path(name).write_text(content)
    with pytest.raises(ValueError, match=told):
        CaptionedFile(name).load(4)


def test_an_image_that_would_fill_the_memory_is_refused(captioned: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 600)
    with pytest.raises(ValueError, match=r"\.png' cannot be read"):
        CaptionedFile(str(captioned)).load(12)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"action": "shout"}, "unknown action 'shout'"),
        ({"n": 2}, "n must be >= 4"),
        ({"error_rate": 1.0}, r"error_rate must be in \(0, 1\)"),
        ({"tolerances": {"accepted": -0.1}}, r"accepted must be in \[0, 1\), got -0.1"),
        ({"tolerances": {"sharpness": 0.1}}, "unknown figure 'sharpness'; choose from: auroc, brier"),
    ],
)
def test_options_without_sense_are_refused(options: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Guard(**options)


def watching(janus_folder: Path, config: str, flags: Mapping[str, object]) -> dict[str, Any]:
    """Run a config in small with a guard that warns; return what the guard keeps."""
    guard = {"trainer.callbacks+": "unigap.callbacks.Guard", "trainer.callbacks.action": "warn"}
    guard |= {"trainer.callbacks.n": 40, "trainer.check_val_every_n_epoch": 1, "run": "run"}
    assert improve(janus_folder, config, {**guard, "model.init_args.eval_plan.candidates": 2, **flags}) == 0
    return guard_state(Path("run/checkpoints/last.ckpt"))


def test_preferences_are_watched(janus_folder: Path, here: Path) -> None:
    for row in watching(janus_folder, "dpo", FICKLE)["history"]:
        assert row["figures"].keys() == set(WATCHES) - {"redrawn"}
        assert all(0 < figure["p_value"] <= 1 for figure in row["figures"].values())


@pytest.mark.parametrize("config", ["grpo", "nft"])
def test_redrawn_prompts_are_compared_with_their_earlier_images(config: str, janus_folder: Path, here: Path) -> None:
    found = watching(janus_folder, config, {**FICKLE, "model.init_args.schedule.prompts": 0, "trainer.max_epochs": 3})
    pool = Pool.open(Path("run/pool"))
    said = pool.logits("random", 2)

    def share(number: int) -> float:
        verdicts = [said[c.id] >= 0 for c in pool.candidates(number) if c.round == number]
        return sum(verdicts) / len(verdicts)

    figures = [row["figures"].get("redrawn") for row in found["history"]]
    assert figures[0] is None, "validation comes before the next round"
    assert [figure["now"] for figure in figures[1:]] == [pytest.approx(share(number)) for number in (1, 2)]
    assert figures[1]["change"]["value"] == pytest.approx(share(1) - share(0))
    assert found["history"][-1]["figures"].keys() == set(WATCHES)


def test_figures_that_a_run_does_not_have_are_refused(
    janus_folder: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = {"model.init_args.eval_plan.candidates": 1}
    assert guarded(janus_folder, {**SMALL, "tolerances": {"spread": 0.1}}, one) == 2
    assert "cannot watch spread: there is one image for each" in capsys.readouterr().err.splitlines()[-1]
    assert guarded(janus_folder, {"n": 40, "action": "warn"}, one) == 0
    assert "spread and duplicates cannot be watched" in "".join(capsys.readouterr())
    assert not {"spread", "duplicates"} & guard_state()["records"].keys()
    latents = SimpleNamespace(drawing_format=DrawingFormat("float16", (4, 2)))
    stage: Any = SimpleNamespace(schedule=None, eval_plan=RoundPlan(2), model=latents)
    assert "are latents and not codes" in absent_figures(stage)["code_entropy"]
    with pytest.raises(ValueError, match="cannot watch redrawn: this stage draws once"):
        chosen_watches(stage, {"redrawn": 0.1})
    stage.schedule = RedrawSchedule(every_n_epochs=1, redraw="solved")
    with pytest.raises(ValueError, match=r"cannot watch redrawn: with .*redraw=solved"):
        chosen_watches(stage, {"redrawn": 0.1})
    with pytest.raises(ValueError, match="is of an earlier version, whose guard kept other figures"):
        Guard().load_state_dict({"start": torch.zeros(2)})
    with pytest.raises(ValueError, match="leaves every figure out"):
        chosen_watches(stage, dict.fromkeys(WATCHES))


def test_a_guard_that_could_never_look_is_refused(
    janus_folder: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert guarded(janus_folder, dict(SMALL), {"trainer.limit_val_batches": 0}) == 2
    assert "set trainer.limit_val_batches" in capsys.readouterr().err.splitlines()[-1]
