"""The table of bad input: a command, and what the one line it ends in has to say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from small_runs import CHECKPOINT, POOL, TRAINER, words

JANUS = "JANUS"
"""Stands for the folder of a sound checkpoint."""


@dataclass(frozen=True)
class Mistake:
    """A command and what the error line has to say of it."""

    command: Sequence[str]
    told: Sequence[str]


def run(config: str, *told: str, verb: str = "fit", **flags: object) -> Mistake:
    """A small run of a shipped config; in the names of flags, ``__`` stands for ``.``, ``stage`` for its init_args."""
    named = {name.replace("stage__", "model__init_args__").replace("__", "."): v for name, v in flags.items()}
    return Mistake(words(verb, config, {**TRAINER, **POOL, CHECKPOINT: JANUS, **named}), told)


def config(file: str, *told: str, verb: str = "fit") -> Mistake:
    """A run of a config on the desk."""
    return Mistake([verb, "--config", file], told)


def gap(*told: str, **options: object) -> Mistake:
    """A ``gap`` of the sound checkpoint."""
    given = {"checkpoint": JANUS, "per_cell": 1, **options}
    return Mistake(["gap", *(word for name, value in given.items() for word in (f"--{name}", str(value)))], told)


def prompts(file: str, *told: str) -> Mistake:
    """A ``gap`` on a prompt file of the desk; the line names the file."""
    return gap(f"'{file}'", *told, prompts=file)


def folder(name: str, *told: str) -> Mistake:
    """A ``gap`` of a checkpoint folder on the desk; the line names the folder."""
    return gap(repr(name), *told, checkpoint=name)


def start(file: str, *told: str) -> Mistake:
    """A ``fit`` that starts from a Lightning checkpoint."""
    return run("sft", "init_from", *told, stage__init_from=file)


def resume(file: str, *told: str, verb: str = "fit") -> Mistake:
    """A run that continues from a Lightning checkpoint."""
    return run("sft", "ckpt_path", *told, verb=verb, ckpt_path=file)


def report(name: str, *told: str) -> Mistake:
    """A ``report`` of a run folder on the desk; the line names the folder."""
    return Mistake(["report", name], (name, *told))


def verify(name: str, *told: str) -> Mistake:
    """A ``pool verify`` of a pool on the desk; the line names the folder."""
    return Mistake(["pool", "verify", name], (name, *told))


NINES = "9" * 5000
VERBS = {
    "unknown verb": Mistake(["ft"], ["unknown verb 'ft'", "did you mean 'fit'"]),
    "verb like no other": Mistake(["train"], ["unknown verb", "demo", "predict", "report"]),
    "unknown pool verb": Mistake(["pool", "verfy", "full"], ["verfy", "did you mean 'verify'"]),
    "no pool verb": Mistake(["pool"], ["verify"]),
    "no config": Mistake(["fit"], ["required", "model"]),
    "abbreviated flag": run("sft", "--trainer.max_epoch", "did you mean 'trainer.max_epochs'", trainer__max_epoch=3),
    "abbreviated option": gap("--cand", cand=3),
    "unknown option": gap("--temprature", "did you mean 'temperature'", temprature=1),
    "unknown option of demo": Mistake(["demo", "--sed", "3"], ["--sed", "did you mean 'seed'"]),
    "unknown option of report": Mistake(["report", "full", "--aut", "x"], ["--aut", "did you mean 'out'"]),
    "a word too many": Mistake(["pool", "verify", "full", "full"], ["unrecognized", "full"]),
    "wrong type of option": gap("candidates", "int", "many", candidates="many"),
}
CONFIG_FILES = {
    "config missing": config("nope.yaml", "nope.yaml", "does not exist"),
    "config a folder": config("full", "full"),
    "config unclosed": config("unclosed.yaml", "'unclosed.yaml'", "line 2"),
    "config empty": config("empty.yaml", "'empty.yaml'", "holds no options"),
    "config empty to validate": config("empty.yaml", "'empty.yaml'", "holds no options", verb="validate"),
    "config a list": config("list.yaml", "'list.yaml'", "holds no options"),
    "config with a number for a key": config("number-key.yaml", "Key must be a string, got: 1"),
    "config with NUL": config("nul.yaml", "'nul.yaml'", "control characters are not allowed"),
    "config nested deep": config("deep.yaml", "'deep.yaml'", "line 1", "nested deeper than"),
    "config of a billion laughs": config("laughs.yaml", "'laughs.yaml'", "aliases make more than"),
    "config in itself": config("mirror.yaml", "'mirror.yaml'", "*m stands inside itself"),
    "config with code": config("python.yaml", "'python.yaml'", "python/object/apply"),
    "config not UTF-8": config("latin.yaml", "'latin.yaml'", "not UTF-8 at byte"),
    "config UTF-16": config("wide.yaml", "'wide.yaml'", "not UTF-8 at byte 0"),
    "a block twice": config("block-twice.yaml", "'block-twice.yaml'", "the key 'trainer' occurs twice"),
    "a key twice": config("lr-twice.yaml", "'lr-twice.yaml'", "line 13", "the key 'lr' occurs twice", verb="predict"),
    "unknown block": config("trainr.yaml", "'trainr.", "did you mean 'trainer'"),
    "unknown key of the stage": config("learning-rate.yaml", "SFTStage", "'lrr' is not accepted", "did you mean 'lr'"),
    "unknown key of the plan": config("candidate.yaml", "RoundPlan", "'candidate'", "did you mean 'candidates'"),
    "text for a number": config("words.yaml", "batch_size", "int", "many", verb="validate"),
    "text for a list": config("text-for-list.yaml", "regrow.at_epochs", "often"),
    "negative size": config("negative.yaml", "batch_size must be >= 1, got -32"),
}
FLAGS = {
    "unknown key": run("sft", "PoolData", "'pr_cell' is not accepted", "did you mean 'per_cell'", data__pr_cell=3),
    "key like no other": run("sft", "SFTStage", "'colour' is not accepted", "choose one of", stage__colour=3),
    "unknown stage": run("sft", "no attribute 'SFTStag'", "did you mean 'SFTStage'", model="unigap.stages.SFTStag"),
    "unknown judge": run("sft", "RandomJuge", "did you mean 'RandomJudge'", stage__judge="RandomJuge"),
    "unknown module": run("sft", "'juges'", "did you mean 'judges'", stage__judge="unigap.juges.RandomJudge"),
    "wrong objective": run("sft", "DPO", stage__objective="unigap.objectives.DPO"),
    "wrong type": run("sft", "trainer.max_epochs", "int", "many", trainer__max_epochs="many"),
    "5,000 digits": run("sft", "more than 4300 digits", data__batch_size=NINES),
    "5,000 digits to gap": gap("seed", "more than 4300 digits", seed=NINES),
    "5,000 digits to demo": Mistake(["demo", "--seed", NINES], ["seed", "more than 4300 digits"]),
}
NUMBERS = {
    "N = 0": run("sft", "candidates must be >= 1, got 0", regrow__plan__candidates=0),
    "N = 0 in gap": gap("candidates must be >= 1, got 0", candidates=0),
    "threshold 2": run("sft", "threshold must be", "got 2", stage__objective__init_args__threshold=2),
    "beta 0": run("dpo", "beta must be > 0", stage__objective__init_args__beta=0),
    "beta -1": run("dpo", "beta must be > 0", "got -1", stage__objective__init_args__beta=-1),
    "beta infinite": run("dpo", "beta must be > 0 and finite", stage__objective__init_args__beta=".inf"),
    "no guidance below 1": run("sft", "cfg must be >= 1", regrow__plan__sampling__cfg=0.5),
    "no guidance below 1 in gap": gap("cfg must be >= 1", cfg=0.5),
    "temperature": gap("temperature must be >= 0", temperature=-1),
    "learning rate 0": run("sft", "lr must be > 0", stage__lr=0),
    "learning rate nan": run("sft", "lr", "nan", stage__lr=".nan"),
    "learning rate infinite": run("sft", "lr must be > 0 and finite", stage__lr=".inf"),
    "yes rate": run("random_judge", "yes_rate must be in (0, 1)", stage__judge__init_args__yes_rate=1.5),
    "epochs count from 1": run("c_sft", "at_epochs counts from 1", regrow__at_epochs="[0]"),
    "batch size 0": run("sft", "batch_size must be >= 1", data__batch_size=0),
    "prompts a cell 0": gap("per_cell must be >= 1, got 0", per_cell=0),
    "LoRA rank": run("sft", "lora_rank must be >= 0", stage__model__init_args__lora_rank=-1),
    "unknown split": run("sft", "unknown split 'tset'", "validation", data__eval_split="tset"),
}
CHECKPOINTS = {
    "checkpoint missing": folder("./nowhere", "no such folder"),
    "checkpoint a file": folder("seen.txt", "is a file"),
    "checkpoint without config": folder("full", "no config.json"),
    "checkpoint of nothing": folder("no-model", "not 'janus'"),
    "checkpoint config cut off": folder("no-json", "config.json is not a JSON object"),
    "checkpoint config nested deep": folder("deep-json", "config.json is not a JSON object"),
    "checkpoint cut off": folder("cut-off", "does not load as Janus"),
    "checkpoint of junk": folder("junk", "does not load as Janus"),
    "checkpoint of other weights": folder("strange", "weights are missing"),
    "checkpoint of another shape": folder("wrong-shape", "does not load as Janus"),
    "checkpoint of no numbers": folder("not-a-number", "norm.weight", "not finite"),
    "checkpoint with a pickle": folder("pickled", "model.safetensors"),
    "checkpoint that is a pickle": folder("pickle-inside", "does not load as Janus"),
    "checkpoint with code": folder("coded", "does not load as Janus"),
    "checkpoint with a template that breaks out": folder("template", "does not load as Janus"),
    "checkpoint from a URL": folder("https://example.org/janus", "is a URL"),
    "checkpoint of a demo": Mistake(["demo", "--checkpoint", "full", "--out", "new"], ["'full'", "no config.json"]),
    "init_from missing": start("nope.ckpt", "no such file"),
    "init_from a URL": start("https://example.org/a.ckpt", "is a URL"),
    "init_from a bare pickle": start("bare.ckpt", "nothing in it was run"),
    "init_from with code": start("bomb.ckpt", "nothing in it was run"),
    "init_from another model": start("other.ckpt", "another model"),
    "init_from only weights": start("weights.ckpt", "no Lightning checkpoint"),
    "ckpt_path missing": resume("nope.ckpt", "no such file"),
    "ckpt_path last, without one": resume("last", "no such file"),
    "ckpt_path junk": resume("junk.ckpt", "nothing in it was run"),
    "ckpt_path cut off": resume("cut.ckpt", "nothing in it was run"),
    "ckpt_path with code": resume("bomb.ckpt", "nothing in it was run"),
    "ckpt_path a bare pickle": resume("bare.ckpt", "nothing in it was run", verb="validate"),
    "ckpt_path only weights": resume("weights.ckpt", "no Lightning checkpoint", verb="predict"),
    "ckpt_path a URL": resume("s3://bucket/a.ckpt", "is a URL", verb="validate"),
}
PROMPTS = {
    "prompts missing": prompts("nope.txt", "no such file"),
    "prompts a folder": prompts("full", "no such file"),
    "prompts of an unknown kind": prompts("text.csv", ".jsonl"),
    "prompts empty": prompts("empty.txt", "holds no prompt"),
    "prompts not UTF-8": prompts("latin.txt", "not UTF-8 at byte 3"),
    "prompts UTF-16": prompts("wide.txt", "not UTF-8 at byte 0"),
    "prompts with a byte-order mark inside": prompts("mark.txt", "line 2", "byte-order mark"),
    "prompts with NaN": prompts("nan.jsonl", "line 1", "NaN is no JSON number"),
    "prompts with NUL": prompts("nul.jsonl", "line 1", "control character"),
    "prompts with half a character": prompts("half.jsonl", "line 1", "broken surrogate"),
    "prompts nested deep": prompts("deep.jsonl", "line 1", "not JSON"),
    "prompts with 5,000 digits": prompts("digits.jsonl", "line 1", "not JSON"),
    "prompts cut off": prompts("cut.jsonl", "line 2", "not JSON"),
    "prompts with an id twice": prompts("twice.jsonl", "line 2", "occurs twice"),
    "prompts with a key twice": prompts("key-twice.jsonl", "line 1", "'text' occurs twice"),
    "prompts with a path for an id": prompts("path.jsonl", "line 1", "a path that leaves its folder"),
    "prompts with a number for a text": prompts("number.jsonl", "line 1", "a 'text' string"),
    "prompts without objects": prompts("bare.jsonl", "line 1", "needs an object"),
    "prompt of a megabyte": prompts("megabyte.txt", "line 1", "characters"),
    "prompt longer than the context": gap("a red circle and", "the context holds", prompts="long.txt"),
    "prompt with an unknown word": gap("'a red zebra'", "no word 'zebra'", prompts="zebra.txt"),
    "training on no prompt": run("sft", "holds no prompt", data__prompts="empty.txt", data__eval_prompts="shapes"),
    "training on an unknown word": run(
        "sft", "no word 'zebra'", data__prompts="zebra.txt", data__eval_prompts="shapes"
    ),
    "evaluating on an unknown word": run("sft", "no word 'zebra'", verb="validate", data__eval_prompts="zebra.txt"),
    "evaluating on what is trained on": run("sft", "also trained on", data__prompts="seen.txt"),
}
POOLS = {
    "pool in another folder": run("random_judge", "full", "not an empty folder", data__pool="full"),
    "pool in a file": run("random_judge", "full/notes.txt", data__pool="full/notes.txt"),
    "pool of another model": run("sft", "pool-of-another", "belongs to model", data__pool="pool-of-another"),
    "pool of other prompts": run(
        "sft", "pool-of-another", "belongs to model", verb="predict", data__pool="pool-of-another"
    ),
    "pool altered": run("sft", "judgments.parquet is damaged", data__pool="pool-altered"),
    "pool without a file": run("sft", "candidates.parquet is missing", data__pool="pool-without"),
    "pool without a round": run("sft", "round-00000 is missing", data__pool="pool-gap"),
    "pool with a pickle": run("sft", "judgments.parquet is damaged", data__pool="pool-pickled"),
    "verify an altered pool": verify("pool-altered", "judgments.parquet is damaged"),
    "verify a pool without a file": verify("pool-without", "candidates.parquet is missing"),
    "verify a pool without a round": verify("pool-gap", "round-00000 is missing"),
    "verify nothing": verify("nowhere", "no such folder"),
    "verify a file": verify("seen.txt", "no such folder"),
    "verify another folder": verify("full", "pool.json is missing"),
}
FOLDERS = {
    "demo in a full folder": Mistake(["demo", "--out", "full"], ["'full' is not empty"]),
    "demo over what is no demo": Mistake(["demo", "--out", "full", "--overwrite"], ["'full' is not empty"]),
    "demo in a file": Mistake(["demo", "--out", "full/notes.txt"], ["is a file"]),
    "demo with another logger": Mistake(["demo", "--logger", "tensorboard"], ["logger", "csv", "wandb"]),
    "figures of a gap in a folder": gap("'full'", "JSON file", out="full"),
    "report of nothing": report("nowhere", "no run folder at"),
    "report of another folder": report("full", "summary.json is missing"),
    "report with an image of text": report("run-text", "00-before.png is not a whole PNG image"),
    "report with a JPEG": report("run-jpeg", "00-before.png is not a whole PNG image"),
    "report with half an image": report("run-cut", "00-before.png is not a whole PNG image"),
    "report with a broken image": report("run-broken", "00-before.png is not a whole PNG image"),
    "report with a decompression bomb": report("run-bomb", "00-before.png is 20000 x 20000 pixels"),
    "report without an image": report("run-missing", "cannot read the image"),
    "report with an image outside": report("run-outside", "lies outside"),
    "report of NaN": report("run-nan", "summary.json.seed must be a whole number"),
    "report nested deep": report("run-deep", "summary.json is damaged"),
    "report cut off": report("run-half", "summary.json is damaged"),
}
STAGES = {
    "pretraining data for a stage": run("sft", "train on a pool", data="unigap.shapes.lesson_data.ShapesLessons"),
    "nothing accepted": run("ceiling", "accepted nothing"),
    "everything accepted": run(
        "dpo", "accepted all", "raise the threshold", stage__objective__init_args__threshold="1.0e-30"
    ),
}
MISTAKES = {
    **VERBS, **CONFIG_FILES, **FLAGS, **NUMBERS, **CHECKPOINTS, **PROMPTS, **POOLS, **FOLDERS, **STAGES
}  # fmt: skip
