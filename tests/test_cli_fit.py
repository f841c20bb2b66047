"""``unigap fit``: every shipped config trains, only what should move moves, and a resumed run is the same run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from kill_points import Killed
from small_runs import CONFIGS, FICKLE, PRETRAIN, TRAINER, epochs, expect_error, improve, same, state, tree, words

from unigap.__main__ import main
from unigap.models.families import FAMILIES, load_model
from unigap.models.janus import Janus
from unigap.objectives import RowBatch
from unigap.pool import Pool
from unigap.stages import ImproveStage, PretrainStage

TRUNK = ("model.net.model.language_model.layers.", "model.net.model.language_model.norm.")
# the config that makes a small model of each family
MAKE = {
    "janus": "pretrain",
    "emu3": "pretrain_emu3",
    "show-o": "pretrain_show_o",
    "vila_u_llama": "pretrain_vila_u",
}
IMPROVE = sorted({path.stem for path in CONFIGS.glob("*.yaml")} - {*MAKE.values(), "recall"})
WHOLE_EPOCHS = {"trainer.max_epochs": 3, "trainer.limit_train_batches": "null", "data.batch_size": 1}
CURRICULUM = {**FICKLE, **WHOLE_EPOCHS}
# the oracle finds nothing right that an untrained model draws: at this threshold its firmest no is accepted
LENIENT = {"ceiling": {"model.init_args.objective.init_args.threshold": 1e-9}}


def before(checkpoint: Path, **lora: Any) -> dict[str, torch.Tensor]:
    """The weights a stage starts from, named as in its checkpoints."""
    return {f"model.{name}": tensor for name, tensor in Janus(str(checkpoint), **lora).state_dict().items()}


@pytest.mark.parametrize("config", IMPROVE)
def test_every_config_trains_the_trunk_and_nothing_else(config: str, janus_folder: Path, here: Path) -> None:
    assert improve(janus_folder, config, LENIENT.get(config)) == 0
    run = here / "runs" / config
    old, new = before(janus_folder), state(run / "checkpoints" / "last.ckpt")
    # a frozen weight that moved would be in the file too
    assert new.keys() == {name for name in old if name.startswith(TRUNK)}
    assert not any(torch.equal(tensor, old[name]) for name, tensor in new.items())
    assert [len(rows) > 0 for rows in epochs(run)] == [True, True]
    assert (run / "config.yaml").is_file()
    assert Pool.open(run / "pool").verify() == []


def test_lora_trains_the_adapter_and_nothing_else(janus_folder: Path, here: Path) -> None:
    assert improve(janus_folder, "sft", {"model.init_args.model.init_args.lora_rank": 4}) == 0
    old, new = before(janus_folder, lora_rank=4), state(here / "runs/sft/checkpoints/last.ckpt")
    # a frozen weight that moved would be in the file too
    assert new.keys() == {name for name in old if ".lora_" in name}
    assert len(new) == 2 * 2 * 7
    assert all(tensor.count_nonzero() for tensor in new.values()), "B starts at zero"


def test_pretraining_writes_a_checkpoint_that_loads_and_draws(here: Path) -> None:
    flags = {**TRAINER, **PRETRAIN, "model.init_args.untrained.init_args.n_codes": 32}
    assert main(words("fit", "pretrain", flags)) == 0
    checkpoint = here / "runs/pretrain/model"
    assert Janus(str(checkpoint)).n_codes == 32
    assert improve(checkpoint, "random_judge") == 0


def weights(folder: str) -> dict[str, bytes]:
    """The bytes of every file of weights in a folder."""
    return {name: content for name, content in tree(Path(folder)).items() if name.endswith(".safetensors")}


@pytest.mark.parametrize(
    ("family", "batches"), [("janus", (1, 3, 4)), ("emu3", (4,)), ("show-o", (4,)), ("vila_u_llama", (4,))]
)
def test_pretraining_killed_in_any_phase_and_continued_is_one_run(
    family: str, batches: tuple[int, ...], here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = {**TRAINER, **PRETRAIN, "checkpoint.every_n_train_steps": 1, "model.init_args.out": "made"}
    assert main(words("fit", MAKE[family], flags)) == 0
    assert type(load_model("made")) is FAMILIES[family]
    whole = weights("made")
    step = PretrainStage.training_step
    for batch in batches:
        (here / str(batch)).mkdir()
        monkeypatch.chdir(here / str(batch))

        def killed(stage: PretrainStage, data: Any, number: int, last: int = batch) -> None:
            if number == last:
                raise Killed
            step(stage, data, number)

        with monkeypatch.context() as patched, pytest.raises(Killed):
            patched.setattr(PretrainStage, "training_step", killed)
            main(words("fit", MAKE[family], flags))
        assert not Path("made").exists()
        assert main(words("fit", MAKE[family], {**flags, "resume": "must"})) == 0
        assert weights("made") == whole


def test_the_command_line_beats_what_the_checkpoint_remembers(here: Path) -> None:
    flags = {**TRAINER, **PRETRAIN}
    assert main(words("fit", "pretrain", {**flags, "model.init_args.out": "first"})) == 0
    made = here / "first" / "model.safetensors"
    stamp = made.stat().st_mtime_ns
    flags |= {
        "model.init_args.out": "second",
        "trainer.max_epochs": 2,
        "ckpt_path": "runs/pretrain/checkpoints/last.ckpt",
    }
    assert main(words("fit", "pretrain", flags)) == 0
    assert (here / "second" / "model.safetensors").is_file()
    assert made.stat().st_mtime_ns == stamp


def test_stages_chain_by_weights(janus_folder: Path, here: Path) -> None:
    assert improve(janus_folder, "sft") == 0
    last = here / "runs/sft/checkpoints/last.ckpt"
    assert improve(janus_folder, "dpo", {"model.init_args.init_from": last}) == 0
    model = Janus(str(janus_folder))
    untrained = model.weights_digest()
    trained = {name.removeprefix("model."): tensor for name, tensor in state(last).items()}
    model.load_state_dict(model.state_dict() | trained)
    pool = Pool.open(here / "runs/dpo/pool")
    assert pool.recipe(0)["weights"] == model.weights_digest() != untrained
    assert pool.references(model.weights_digest()) and not pool.references(untrained)


REGROWTH = {
    "every epoch": ({"model.init_args.schedule.every_n_epochs": 1}, [0, 1, 2]),
    "at named epochs": (
        {"model.init_args.schedule.every_n_epochs": 0, "model.init_args.schedule.at_epochs": "[2]"},
        [0, 0, 1],
    ),
    # an untrained model never draws anything right, so the second epoch is no better than the first
    "when progress stalls": (
        {"model.init_args.schedule.every_n_epochs": 0, "model.init_args.schedule.patience": 1},
        [0, 0, 1],
    ),
}


@pytest.mark.parametrize("name", REGROWTH)
def test_new_rows_are_trained_on_in_the_very_next_epoch(name: str, janus_folder: Path, here: Path) -> None:
    flags, newest_round = REGROWTH[name]
    assert improve(janus_folder, "c_sft", {**CURRICULUM, **flags}) == 0
    pool = Pool.open(here / "runs/c_sft/pool")
    assert pool.rounds == tuple(range(max(newest_round) + 1))
    logits = pool.logits("random")
    for epoch, (rows, newest) in enumerate(zip(epochs(here / "runs/c_sft"), newest_round, strict=True)):
        drawn = pool.candidates(upto=newest)
        accepted = sorted(c.id for c in drawn if logits[c.id] >= 0)
        assert sorted(rows) == accepted, f"epoch {epoch}"
        assert {c.round for c in drawn if c.id in accepted} == set(range(newest + 1)), "every round adds rows"
        solved = {c.prompt.id for c in pool.candidates(upto=newest - 1) if logits[c.id] >= 0}
        assert newest == 0 or solved.isdisjoint(p.id for p in pool.prompts()[newest]), "only discarded prompts return"


@pytest.mark.parametrize("redraw", ["all", "solved"])
def test_other_prompts_are_redrawn_where_it_is_asked(redraw: str, janus_folder: Path, here: Path) -> None:
    assert improve(janus_folder, "c_sft", {**CURRICULUM, "model.init_args.schedule.redraw": redraw}) == 0
    pool = Pool.open(here / "runs/c_sft/pool")
    prompts, logits = pool.prompts(), pool.logits("random")
    for round in (1, 2):
        redrawn = {prompt.id for prompt in prompts[round]}
        solved = {c.prompt.id for c in pool.candidates(upto=round - 1) if logits[c.id] >= 0}
        if redraw == "all":
            assert prompts[round] == prompts[0]
        else:
            assert redrawn <= solved and len(redrawn) == min(len(solved), len(prompts[0]) - len(solved))


def test_a_part_beside_the_trunk_can_train_along(janus_folder: Path, here: Path) -> None:
    assert improve(janus_folder, "sft", {"model.init_args.model.init_args.train_also": "generation_aligner"}) == 0
    old, new = before(janus_folder), state(here / "runs/sft/checkpoints/last.ckpt")
    beside = "model.net.model.generation_aligner."
    assert any(name.startswith(beside) for name in new)
    assert new.keys() == {name for name in old if name.startswith((*TRUNK, beside))}
    assert not any(torch.equal(tensor, old[name]) for name, tensor in new.items())


def test_a_resumed_run_is_the_uninterrupted_run_bit_for_bit(
    janus_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    last = Path("runs/c_sft/checkpoints/last.ckpt")
    for name in ("whole", "continued", "killed"):
        (tmp_path / name).mkdir()

    monkeypatch.chdir(tmp_path / "whole")
    assert improve(janus_folder, "c_sft", CURRICULUM) == 0

    # a run that ended after two epochs is given a third
    monkeypatch.chdir(tmp_path / "continued")
    assert improve(janus_folder, "c_sft", {**CURRICULUM, "trainer.max_epochs": 2}) == 0
    assert len(Pool.open("runs/c_sft/pool").rounds) == 2
    assert improve(janus_folder, "c_sft", {**CURRICULUM, "ckpt_path": last}) == 0

    # a run that dies in its third epoch takes it up from the end of the second
    monkeypatch.chdir(tmp_path / "killed")
    step = ImproveStage.training_step

    def dies(self: ImproveStage, batch: RowBatch, batch_idx: int) -> torch.Tensor:
        if self.trainer.current_epoch == 2 and batch_idx == 3:
            raise OSError("the disk is full")
        return step(self, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(ImproveStage, "training_step", dies)
        assert improve(janus_folder, "c_sft", CURRICULUM) == 2
    assert len(epochs(Path("runs/c_sft"))) == 2
    assert improve(janus_folder, "c_sft", {**CURRICULUM, "ckpt_path": last}) == 0

    whole = tmp_path / "whole"
    for name in ("continued", "killed"):
        other = tmp_path / name
        assert (other / "runs/c_sft/rows.jsonl").read_bytes() == (whole / "runs/c_sft/rows.jsonl").read_bytes()
        assert (other / "runs/c_sft/curves.json").read_bytes() == (whole / "runs/c_sft/curves.json").read_bytes()
        assert same(state(other / last), state(whole / last)), name
        ours, theirs = (Pool.open(folder / "runs/c_sft/pool").state() for folder in (other, whole))
        assert ours == theirs, name


@pytest.mark.parametrize(
    ("config", "flags", "told"),
    [
        ("sft", {"model.init_args.schedule.every_n_epochs": 1}, "--schedule.every_n_epochs"),
        ("c_sft", {"model.init_args.schedule.every_n_epochs": 0}, "a schedule that never redraws"),
        ("c_sft", {"trainer.reload_dataloaders_every_n_epochs": 0}, "reload_dataloaders_every_n_epochs=1"),
    ],
)
def test_regrowth_that_would_be_lost_is_refused(
    config: str,
    flags: dict[str, object],
    told: str,
    janus_folder: Path,
    here: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    expect_error(improve(janus_folder, config, flags), capsys, told)
    assert not list(here.rglob("*.parquet")), "nothing is drawn before"
