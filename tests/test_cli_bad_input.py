"""Mistakes at the command line: each gives one clear line and exit status 2, and changes nothing of the user's."""

from __future__ import annotations

import os
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from small_runs import CHECKPOINT, CONFIGS, POOL, TRAINER, expect_error, tree, words

from unigap.__main__ import main


class Bomb:
    """Runs a command when it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch EXECUTED",)


@pytest.fixture
def desk(here: Path, janus_folder: Path) -> Path:
    """A folder with everything a user could name by mistake."""
    texts = {
        "zebra.txt": "a red zebra\na red circle\n",
        "long.txt": " and ".join(["a red circle"] * 100) + "\n",
        "empty.txt": "\n\n",
        "twice.jsonl": '{"text": "a red circle", "id": "x"}\n{"text": "a blue ring", "id": "x"}\n',
        "text.csv": "a red circle\n",
        "seen.txt": "a red circle\n",
        "typo.yaml": "model: [unclosed\n",
        "no-model/config.json": "{}",
        "full/notes.txt": "mine",
    }
    for name, text in texts.items():
        (here / name).parent.mkdir(exist_ok=True)
        (here / name).write_text(text)
    (here / "latin.txt").write_bytes(b"a r\xe9d circle\n")
    (here / "bare.ckpt").write_bytes(pickle.dumps(Bomb()))
    torch.save({"state_dict": {"model.x": torch.zeros(1)}, "pytorch-lightning_version": "2", "x": Bomb()}, "bomb.ckpt")
    torch.save({"state_dict": {"model.x": torch.zeros(1)}, "pytorch-lightning_version": "2"}, "other.ckpt")
    torch.save({"weights": torch.zeros(1)}, "weights.ckpt")
    for name in ("cut-off", "strange", "pickled"):
        (here / name).mkdir()
        for file in janus_folder.iterdir():
            (here / name / file.name).write_bytes(file.read_bytes())
    weights = (janus_folder / "model.safetensors").read_bytes()
    (here / "cut-off" / "model.safetensors").write_bytes(weights[:4096])
    save_file({"x": torch.zeros(1)}, here / "strange" / "model.safetensors", {"format": "pt"})
    (here / "pickled" / "model.safetensors").unlink()
    (here / "pickled" / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb()))
    return here


@dataclass(frozen=True)
class Mistake:
    """A command and what the error line has to say; ``JANUS`` stands for the folder of a sound checkpoint."""

    command: Sequence[str]
    told: Sequence[str]


def fit(config: str, told: str | tuple[str, ...], **flags: object) -> Mistake:
    """A small ``fit``; in the names of flags, ``__`` stands for ``.`` and ``stage`` for the model's init_args."""
    named = {name.replace("stage__", "model__init_args__").replace("__", "."): v for name, v in flags.items()}
    command = words("fit", config, {**TRAINER, **POOL, CHECKPOINT: "JANUS", **named})
    return Mistake(command, (told,) if isinstance(told, str) else told)


def load(folder: str, told: str) -> Mistake:
    """A ``fit`` from a checkpoint folder."""
    return fit("sft", (folder, told), **{CHECKPOINT.replace(".", "__"): folder})


def gap(told: str | tuple[str, ...], **options: object) -> Mistake:
    """A ``gap`` of the sound checkpoint."""
    given = {"checkpoint": "JANUS", "per_cell": 1, **options}
    command = [word for name, value in given.items() for word in (f"--{name}", str(value))]
    return Mistake(["gap", *command], (told,) if isinstance(told, str) else told)


MISTAKES = {
    # verbs, options, configs
    "unknown verb": Mistake(["ft"], ["unknown verb 'ft'", "did you mean 'fit'"]),
    "verb like no other": Mistake(["train"], ["unknown verb", "demo", "predict", "report"]),
    "unknown pool verb": Mistake(["pool", "verfy", "full"], ["verfy", "verify"]),
    "no pool verb": Mistake(["pool"], ["verify"]),
    "no config": Mistake(["fit"], ["required", "model"]),
    "missing config": Mistake(["fit", "--config", "nope.yaml"], ["nope.yaml", "does not exist"]),
    "broken config": Mistake(["fit", "--config", "typo.yaml"], ["config"]),
    "abbreviated flag": fit("sft", "--trainer.max_epoch", trainer__max_epoch=3),
    "abbreviated option": gap("--cand", cand=3),
    "unknown key": fit("sft", ("PoolData", "'pr_cell' is not accepted"), data__pr_cell=3),
    "unknown stage key": fit("sft", ("SFTStage", "'learning_rate' is not accepted"), stage__learning_rate=3),
    "unknown option": gap("--colour", colour="red"),
    "unknown stage": fit("sft", "no attribute 'SFTStag'", model="unigap.stages.SFTStag"),
    "unknown judge": fit("sft", "NoSuchJudge", stage__judge="NoSuchJudge"),
    "wrong objective": fit("sft", "DPO", stage__objective="unigap.objectives.DPO"),
    "wrong type": fit("sft", ("trainer.max_epochs", "int", "many"), trainer__max_epochs="many"),
    "wrong type of option": gap(("candidates", "int", "many"), candidates="many"),
    # numbers out of range
    "N = 0": fit("sft", "candidates must be >= 1, got 0", regrow__plan__candidates=0),
    "N = 0 in gap": gap("candidates must be >= 1, got 0", candidates=0),
    "threshold 2": fit("sft", "threshold must be", stage__objective__init_args__threshold=2),
    "beta 0": fit("dpo", "beta must be > 0", stage__objective__init_args__beta=0),
    "no guidance below 1": fit("sft", "cfg must be >= 1", regrow__plan__sampling__cfg=0.5),
    "no guidance below 1 in gap": gap("cfg must be >= 1", cfg=0.5),
    "temperature": gap("temperature must be >= 0", temperature=-1),
    "learning rate": fit("sft", "lr must be > 0", stage__lr=0),
    "yes rate": fit("random_judge", "yes_rate must be in (0, 1)", stage__judge__init_args__yes_rate=1.5),
    "epochs count from 1": fit("c_sft", "at_epochs counts from 1", regrow__at_epochs="[0]"),
    "batch size": fit("sft", "batch_size must be >= 1", data__batch_size=0),
    "LoRA rank": fit("sft", "lora_rank must be >= 0", stage__model__init_args__lora_rank=-1),
    "unknown split": fit("sft", ("unknown split 'tset'", "validation"), data__eval_split="tset"),
    # checkpoints
    "missing checkpoint": load("./nowhere", "no such folder"),
    "checkpoint without config": load("full", "no config.json"),
    "checkpoint of nothing": load("no-model", "not 'janus'"),
    "checkpoint cut off": load("cut-off", "does not load as Janus"),
    "checkpoint of other weights": load("strange", "weights are missing"),
    "checkpoint with code": load("pickled", "model.safetensors"),
    "checkpoint from a URL": load("https://example.org/janus", "is a URL"),
    "init_from missing": fit("sft", ("init_from", "no such file"), stage__init_from="nope.ckpt"),
    "init_from a URL": fit("sft", ("init_from", "is a URL"), stage__init_from="https://example.org/a.ckpt"),
    "init_from a bare pickle": fit("sft", ("init_from", "nothing in it was run"), stage__init_from="bare.ckpt"),
    "init_from with code": fit("sft", ("init_from", "nothing in it was run"), stage__init_from="bomb.ckpt"),
    "init_from another model": fit("sft", ("init_from", "another model"), stage__init_from="other.ckpt"),
    "init_from only weights": fit("sft", ("init_from", "no Lightning checkpoint"), stage__init_from="weights.ckpt"),
    "ckpt_path missing": fit("sft", ("ckpt_path", "no such file"), ckpt_path="nope.ckpt"),
    "ckpt_path last, without one": fit("sft", ("ckpt_path", "no such file"), ckpt_path="last"),
    "ckpt_path with code": fit("sft", ("ckpt_path", "nothing in it was run"), ckpt_path="bomb.ckpt"),
    "ckpt_path a bare pickle": fit("sft", ("ckpt_path", "nothing in it was run"), ckpt_path="bare.ckpt"),
    "ckpt_path only weights": fit("sft", ("ckpt_path", "no Lightning checkpoint"), ckpt_path="weights.ckpt"),
    # prompts
    "missing prompts": gap(("'nope.txt'", "no such file"), prompts="nope.txt"),
    "unknown kind of prompts": gap(("'text.csv'", ".jsonl"), prompts="text.csv"),
    "prompt with an unknown word": gap(("'a red zebra'", "no word 'zebra'"), prompts="zebra.txt"),
    "prompt too long": gap(("a red circle and", "the context holds"), prompts="long.txt"),
    "no prompt": gap(("'empty.txt'", "holds no prompt"), prompts="empty.txt"),
    "prompts not UTF-8": gap(("'latin.txt'", "not UTF-8 at byte 3"), prompts="latin.txt"),
    "ids twice": gap(("'twice.jsonl', line 2", "occurs twice"), prompts="twice.jsonl"),
    "no prompt to train on": fit("sft", "holds no prompt", data__prompts="empty.txt", data__eval_prompts="shapes"),
    "training on an unknown word": fit(
        "sft", "no word 'zebra'", data__prompts="zebra.txt", data__eval_prompts="shapes"
    ),
    "evaluating on what is trained on": fit("sft", "also trained on", data__prompts="seen.txt"),
    # folders
    "pool in another folder": fit("random_judge", ("full", "not an empty folder"), data__pool="full"),
    "pool in a file": fit("random_judge", "full/notes.txt", data__pool="full/notes.txt"),
    "pool verify of nothing": Mistake(["pool", "verify", "nowhere"], ["no such folder"]),
    "pool verify of another folder": Mistake(["pool", "verify", "full"], ["pool.json is missing"]),
    "demo in a full folder": Mistake(["demo", "--out", "full"], ["'full' is not empty"]),
    "demo over what is no demo": Mistake(["demo", "--out", "full", "--overwrite"], ["'full' is not empty"]),
    "demo in a file": Mistake(["demo", "--out", "full/notes.txt"], ["is a file"]),
    "demo with another logger": Mistake(["demo", "--logger", "tensorboard"], ["logger", "csv", "wandb"]),
    "report of nothing": Mistake(["report", "nowhere"], ["no run folder at nowhere"]),
    "report of another folder": Mistake(["report", "full"], ["summary.json is missing"]),
    # stages and data that do not fit
    "pretraining data for a stage": fit("sft", "train on a pool", data="unigap.shapes.lesson_data.ShapesLessons"),
    "nothing accepted": fit("ceiling", "accepted nothing"),
}


# Lightning's own hint, beside our line, where the data module of another stage is named
@pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`")
@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_gives_one_clear_line(
    name: str, desk: Path, janus_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mistake = MISTAKES[name]
    before = {**tree(desk), **{f"configs/{file}": data for file, data in tree(CONFIGS).items()}}
    capsys.readouterr()
    status = main([str(janus_folder) if word == "JANUS" else word for word in mistake.command])
    expect_error(status, capsys, *mistake.told)
    after = {**tree(desk), **{f"configs/{file}": data for file, data in tree(CONFIGS).items()}}
    assert {file: after.get(file) for file in before} == before, "a file of the user's was changed"
    assert not (desk / "EXECUTED").exists(), "code in a checkpoint was run"


def test_the_bombs_are_live(desk: Path) -> None:
    with (desk / "bare.ckpt").open("rb") as file:
        pickle.load(file)
    assert (desk / "EXECUTED").exists()
