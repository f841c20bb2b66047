"""The Dynamics callback: what it tells, that it tells every logger, and that training never notices it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger, WandbLogger
from PIL import Image
from small_pools import PROMPTS, draw
from small_runs import CHECKPOINT, FICKLE, WATCHED, improve, same, state

import theory
from unigap.callbacks import Dynamics
from unigap.callbacks.dynamics_coupling import coupling_by_part, layer_of
from unigap.callbacks.dynamics_log import log_figures, show_picture
from unigap.callbacks.dynamics_probes import GROUPS, paired_sources, pick_probes
from unigap.report.plots import dynamics_plots

LAST = "runs/sft/checkpoints/last.ckpt"
# adapters with dropout: a callback that drew random numbers or left a layer in eval mode would change the weights
DROPOUT = {
    **FICKLE,
    CHECKPOINT.replace("checkpoint", "lora_rank"): 2,
    CHECKPOINT.replace("checkpoint", "lora_dropout"): 0.2,
    "regrow.plan.candidates": 6,
}


@pytest.fixture(scope="module")
def watched(janus_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of four steps, watched at the second and the fourth, and its twin without the callback."""
    folder = tmp_path_factory.mktemp("dynamics")
    with pytest.MonkeyPatch.context() as patch:
        for name, flags in (("plain", {}), ("seen", WATCHED)):
            (folder / name).mkdir()
            patch.chdir(folder / name)
            assert improve(janus_folder, "sft", {**DROPOUT, **flags}) == 0
    return folder


def rows_of(watched: Path, kind: str) -> list[dict[str, Any]]:
    rows = json.loads((watched / "seen/watched/dynamics.json").read_text())
    return [row for row in rows if row["kind"] == kind]


def test_watching_changes_nothing(watched: Path) -> None:
    assert same(state(watched / "seen" / LAST), state(watched / "plain" / LAST))
    optimizer = [torch.load(watched / name / LAST, weights_only=True)["optimizer_states"] for name in ("seen", "plain")]
    ours, theirs = ({str(k): v["exp_avg"] for k, v in states[0]["state"].items()} for states in optimizer)
    assert same(ours, theirs)


def test_predictions_along_the_real_step_are_right(watched: Path) -> None:
    (probes,) = rows_of(watched, "probes")
    steps = rows_of(watched, "step")
    assert [row["step"] for row in steps] == [2, 4]
    for row in steps:
        for head in ("generation", "understanding"):
            seen = {name: torch.tensor(values) for name, values in row[head].items()}
            assert len(seen["measured"]) == len(probes["ids"]) and seen["measured"].abs().max() > 0
            fit = theory.fit(seen["predicted"], seen["measured"])
            assert fit.r2 > 0.9 and abs(fit.slope - 1) < 0.1, (head, fit)
            assert row["figures"][f"fit/{head}/r2"] == pytest.approx(fit.r2)
            parts = seen["gradient"] + seen["momentum"] + seen["weight_decay"]
            torch.testing.assert_close(parts, seen["predicted"], rtol=1e-3, atol=1e-6)


def test_kernels_are_taken_before_and_during_training(watched: Path) -> None:
    kernels = rows_of(watched, "kernel")
    assert [row["step"] for row in kernels] == [0, 2, 4]
    for row in kernels:
        told = row["figures"]
        parts = [value for name, value in told.items() if name.startswith("part/")]
        assert sum(parts) == pytest.approx(told["own_cosine/value"], abs=1e-5)
        assert {"coupling/value", "coupling/null", "coupling/p", "cka/null", "sign_agreement/value"} <= told.keys()
        assert 0 < told["coupling/p"] <= 1
    start, end = kernels[0], kernels[-1]
    assert start["figures"]["co_improve"] == start["figures"]["co_degrade"] == 0
    assert start["generation"] != end["generation"] and start["understanding"] != end["understanding"]


def test_pictures_and_figures_reach_the_folder_and_the_csv_logger(watched: Path) -> None:
    pictures = {path.name for path in (watched / "seen/watched").glob("*.png")}
    kinds = {"prediction": (2, 4), "coupling": (0, 2, 4), "kernel": (0, 2, 4), "quadrants": (2, 4)}
    assert pictures == {f"{kind}-{step:06d}.png" for kind, steps in kinds.items() for step in steps}
    header = (watched / "seen/runs/sft/logs/version_0/metrics.csv").read_text().splitlines()[0].split(",")
    assert {"dynamics/own_cosine/value", "dynamics/fit/generation/r2", "train/loss"} <= set(header)


def test_every_logger_gets_figures_and_pictures_where_it_can(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    loggers = [CSVLogger(here), TensorBoardLogger(here / "board"), WandbLogger(save_dir=here, offline=True)]
    picture = dynamics_plots.coupling_plot({"layer 0 mlp": 0.1, "layer 0 attention": -0.02})
    log_figures(loggers, {"dynamics/x": 0.5, "dynamics/unknown": float("nan")}, 3)
    path = show_picture(loggers, here / "pictures", "coupling", picture, 3)
    for logger in loggers:
        logger.save()
        logger.finalize("success")
    with Image.open(path) as image:
        assert image.size[0] > 100
    assert "dynamics/x" in next(here.rglob("metrics.csv")).read_text()
    board = event_accumulator.EventAccumulator(str(next((here / "board").rglob("events*")).parent)).Reload()
    assert board.Tags()["images"] == ["dynamics/coupling"] and board.Tags()["scalars"] == ["dynamics/x"]
    loggers[2].experiment.finish()
    assert list(here.rglob("wandb/offline-run-*/files/media/images/**/*.png"))


def test_probes_are_drawn_by_verdict_and_repeatably() -> None:
    candidates = [candidate for prompt in PROMPTS for candidate in draw(prompt, 0, 6)]
    accepted = {c.id: i % 2 == 0 for i, c in enumerate(candidates)}
    right = {c.id: i % 3 == 0 for i, c in enumerate(candidates)}
    probes = pick_probes(candidates, accepted, right, 3, seed=1)
    assert [probes.groups.count(group) for group in GROUPS] == [3, 3, 3, 3]
    for candidate, group in zip(probes.candidates, probes.groups, strict=True):
        assert group.endswith("accept") == accepted[candidate.id]
        assert group.startswith("true") == (accepted[candidate.id] == right[candidate.id])
    assert probes.right_P.tolist() == [right[c.id] for c in probes.candidates]
    assert (
        probes == pick_probes(candidates, accepted, right, 3, seed=1) != pick_probes(candidates, accepted, right, 3, 2)
    )
    with pytest.raises(ValueError, match="need 3 probes, the pool gives 2"):
        pick_probes(candidates[:2], accepted, right, 3, seed=0)


def test_parts_add_up_and_their_null_is_that_of_permutations(janus: Any) -> None:
    from unigap.loop.plan import RoundPlan
    from unigap.loop.sampling import sample_candidates
    from unigap.worlds.shapes.prompt_sets import prompts

    plan = RoundPlan(2)
    sampled = next(sample_candidates(janus, prompts("improve", 1)[:6], 2, 0, 0, plan.sampling))
    sources = paired_sources(janus, sampled.candidates, ("Does this image describe {prompt}?",))
    taken = theory.gram(janus, sources, per_module=True).regrouped(layer_of)
    assert {"layer 0 attention", "layer 1 mlp", "layer 1 norms", "norm"} == set(taken.parts) - {
        "layer 0 mlp", "layer 0 norms", "layer 1 attention",
    }  # fmt: skip
    parts = coupling_by_part(taken)
    own = theory.alignment(taken, permutations=4000).own_cosine
    assert sum(part.value for part in parts.values()) == pytest.approx(own.value, abs=1e-6)
    whole = coupling_by_part(theory.Gram(taken.K, taken.values, taken.sizes, taken.method, {"all": taken.K}))["all"]
    assert whole.null_mean == pytest.approx(own.null_mean, abs=own.null_std / 10)
    assert whole.null_std == pytest.approx(own.null_std, rel=0.1)


@pytest.mark.parametrize(("name", "value"), [("per_group", 0), ("step_every", -1), ("gram_every", -1)])
def test_bad_settings_are_named(name: str, value: int) -> None:
    with pytest.raises(ValueError, match=rf"{name} must be >= {value + 1}, got {value}"):
        Dynamics(**{name: value})


def test_online_runs_are_watched_too(janus_folder: Path, here: Path) -> None:
    online = {"model.init_args.schedule.prompts": 8, "regrow.plan.candidates": 6, "data.batch_size": 8}
    assert improve(janus_folder, "grpo", {**DROPOUT, **online, **WATCHED}) == 0
    rows = json.loads((here / "watched/dynamics.json").read_text())
    steps = [row for row in rows if row["kind"] == "step"]
    assert [row["step"] for row in steps] == [2, 4]
    for row in steps:
        for head in ("generation", "understanding"):
            assert row["figures"][f"fit/{head}/r2"] > 0.9, (row["step"], head)
