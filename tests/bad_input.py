"""The table of bad input: a command, and what the one line it ends in has to say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from small_runs import CHECKPOINT, POOL, PRETRAIN, TRAINER, words

JANUS = "JANUS"
"""Stands for the folder of a sound checkpoint."""
SELF = "unigap.judges.SelfJudge"
BOXES = {"detector": "unigap.instruments.BoxDetector", "detector__checkpoint": "sets/detector"}


@dataclass(frozen=True)
class Mistake:
    """A command and what the error line has to say of it."""

    command: Sequence[str]
    told: Sequence[str]


def run(config: str, *told: str, verb: str = "fit", **flags: object) -> Mistake:
    """A small run of a shipped config; in the names of flags, ``__`` stands for ``.``, ``stage`` for its init_args."""
    named = {name.replace("stage__", "model__init_args__").replace("__", "."): v for name, v in flags.items()}
    return Mistake(words(verb, config, {**TRAINER, **POOL, CHECKPOINT: JANUS, **named}), told)


def pretrain(config: str, *told: str, **flags: object) -> Mistake:
    """A small pretraining; names of flags as in ``run``."""
    named = {name.replace("stage__", "model__init_args__").replace("__", "."): v for name, v in flags.items()}
    return Mistake(words("fit", config, {**TRAINER, **PRETRAIN, **named}), told)


FROM_MODEL = {
    "stage__untrained": "null",
    "stage__model": "unigap.models.janus.Janus",
    "stage__model__init_args__checkpoint": JANUS,
}


def config(file: str, *told: str, verb: str = "fit") -> Mistake:
    """A run of a config on the desk."""
    return Mistake([verb, "--config", file], told)


def gap(*told: str, **options: object) -> Mistake:
    """A ``gap`` of the sound checkpoint."""
    given = {"checkpoint": JANUS, "per_cell": 1, **options}
    return Mistake(["gap", *(word for name, value in given.items() for word in (f"--{name}", str(value)))], told)


def calibrate(*told: str, **options: object) -> Mistake:
    """A ``calibrate`` of the sound checkpoint."""
    given = {"checkpoint": JANUS, **options}
    return Mistake(["calibrate", *(word for name, value in given.items() for word in (f"--{name}", str(value)))], told)


def draw(prompt: str, *told: str, **options: object) -> Mistake:
    """A ``draw`` with the sound checkpoint."""
    given = [word for name, value in {"checkpoint": JANUS, **options}.items() for word in (f"--{name}", str(value))]
    return Mistake(["draw", prompt, *given], told)


def bench(name: str, prompts: str, *told: str, **options: object) -> Mistake:
    """A ``bench`` of the sound checkpoint on a prompt set of the desk."""
    given = {"checkpoint": JANUS, **options}
    words = [word for option, value in given.items() for word in (f"--{option.replace('__', '.')}", str(value))]
    return Mistake(["bench", name, prompts.replace(":", ":sets/"), *words], told)


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


def judge(verb: str, pool: str, *told: str, **options: object) -> Mistake:
    """A ``judge`` verb on a pool of the desk."""
    given = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    return Mistake(["judge", verb, pool, *given], told)


def export_model(run: str, *told: str) -> Mistake:
    """An ``export model`` of a run of the desk."""
    return Mistake(["export", "model", run, "--out", "new"], told)


def sheet(file: str, *told: str) -> Mistake:
    """A ``judge import`` of a sheet of the desk; the line names the sheet."""
    return Mistake(["judge", "import", "pool-of-another", file], (f"'{file}'", *told))


def images(source: str, *told: str, **options: object) -> Mistake:
    """A ``pool import`` of images of the desk."""
    given = [word for name, value in {"checkpoint": JANUS, **options}.items() for word in (f"--{name}", str(value))]
    return Mistake(["pool", "import", f"images/{source}", "imported", *given], told)


def prompt_set(name: str, file: str, *told: str) -> Mistake:
    """A ``prompts import`` of a set of the desk; the line names the file."""
    return Mistake(["prompts", "import", f"{name}:sets/{file}"], (f"sets/{file.partition('#')[0]}'", *told))


def score(benchmark: str, prompts: str, answers: str, *told: str) -> Mistake:
    """A ``score`` of answers of the desk."""
    command = ["score", benchmark, "--prompts", prompts.replace(":", ":sets/"), "--answers", f"sets/{answers}.jsonl"]
    return Mistake(command, told)


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
    "a page of no sheet": Mistake(["judge", "page", "full"], ["verdicts.csv", "no such file"]),
    "push what is no export": Mistake(["push", "pool", "full", "me/pool"], ["'full'", "unigap export pool"]),
    "unknown kind of push": Mistake(["push", "modl", "full", "me/pool"], ["modl", "did you mean 'model'"]),
    "unknown shipped config": Mistake(["configs", "show", "shape/sft"], ["'shape/sft'", "did you mean 'shapes/sft'"]),
    "copy over a file": Mistake(["configs", "copy", "shapes/sft", "--out", "seen.txt"], ["'seen.txt' exists"]),
    "copy into a pool": Mistake(["configs", "copy", "wandb", "--out", "pool-of-another/a.yaml"], ["--out", "pool"]),
    "fit of an unknown shipped config": Mistake(["fit", "--config", "shapes/stf"], ["did you mean 'shapes/sft'"]),
    "fit of a config like none": Mistake(["fit", "--config", "x/y"], ["'x/y' does not exist; unigap configs lists"]),
    "a word too many": Mistake(["pool", "verify", "full", "full"], ["unrecognized", "full"]),
    "wrong type of option": gap("candidates", "int", "many", candidates="many"),
    "a word for a switch": Mistake(["judge", "export", "full", "--blind", "banana"], ["blind", "bool", "banana"]),
    "an empty name to write to": Mistake(["report", "run-text", "--out", ""], ["--out ''", "names no file"]),
    "check nothing": Mistake(["check", "--checkpoint", "nowhere"], ["'nowhere'"]),
    "check with one prompt": Mistake(["check", "--texts", "['a ring']"], ["two prompts and two questions"]),
    "check with one candidate": Mistake(["check", "--candidates", "1"], ["candidates", ">= 2", "got 1"]),
    "inspect nothing": Mistake(["inspect", "nowhere"], ["'nowhere'", "no such file"]),
    "inspect a billion laughs": Mistake(["inspect", "laughs.yaml"], ["'laughs.yaml'", "aliases make more than"]),
    "inspect a pipe": Mistake(["inspect", "pipe.yaml"], ["'pipe.yaml'", "it is a pipe"]),
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
    "a key twice": config("lr-twice.yaml", "'lr-twice.yaml'", "line 10", "the key 'lr' occurs twice", verb="predict"),
    "unknown block": config("trainr.yaml", "'trainr.", "did you mean 'trainer'"),
    "unknown key of the stage": config("learning-rate.yaml", "SFTStage", "'lrr' is not accepted", "did you mean 'lr'"),
    "unknown key of the plan": config("candidate.yaml", "RoundPlan", "'candidate'", "did you mean 'candidates'"),
    "text for a number": config("words.yaml", "batch_size", "int", "many", verb="validate"),
    "text for a list": config("text-for-list.yaml", "RedrawSchedule", "at_epochs", "often"),
    "an option before its config": Mistake(
        ["fit", "--data.init_args.batch_size", "-7", "--config", "negative.yaml"], ["batch_size must be >= 1, got -7"]
    ),
    "config a pipe": config("pipe.yaml", "'pipe.yaml'", "it is a pipe"),
    "config a device": Mistake(["fit", "--config=/dev/zero"], ["'--config=/dev/zero'", "it is a device"]),
    "config too large": config("huge.yaml", "'huge.yaml'", "larger than 1 MiB"),
    "a pipe in a config": config("nested-pipe.yaml", "'pipe.yaml'", "it is a pipe"),
    "model a pipe": Mistake(["fit", "--model", "pipe.yaml"], ["'pipe.yaml'", "it is a pipe"]),
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
    "a learning rate of the optimizer's own": run(
        "sft",
        "'lr' is not accepted; did you mean model.init_args.lr, its place?",
        stage__optimizer="torch.optim.SGD",
        stage__optimizer__init_args__lr=0.1,
    ),
    "two weight decays": run(
        "sft", "optimizer.init_args.weight_decay", "leave", stage__optimizer="torch.optim.SGD", stage__weight_decay=0.1
    ),
    "unknown optimizer": run("sft", "'Adm'", "did you mean 'Adam'", stage__optimizer="torch.optim.Adm"),
    "no optimizer": run("sft", "torch.nn.Linear", "subclass of", "Optimizer", stage__optimizer="torch.nn.Linear"),
    "an optimizer for sparse gradients": run("sft", "SparseAdam needs", stage__optimizer="torch.optim.SparseAdam"),
    "an optimizer of many evaluations": run("sft", "LBFGS evaluates", stage__optimizer="torch.optim.LBFGS"),
    "momentum below 0": run(
        "sft", "momentum", "-1", stage__optimizer="torch.optim.SGD", stage__optimizer__init_args__momentum=-1
    ),
    "a cosine of an endless run": run(
        "sft", "lr_schedule Cosine", "set trainer.max_epochs", stage__lr_schedule="Cosine", trainer__max_epochs=-1
    ),
    "a decay longer than the run": run(
        "sft", "decay", "(0, 1]", stage__lr_schedule="WarmupStableDecay", stage__lr_schedule__init_args__decay=2
    ),
    "a final factor above 1": run(
        "sft", "final", "[0, 1]", "got 2", stage__lr_schedule="Cosine", stage__lr_schedule__init_args__final=2
    ),
    "clipping below 0": run("sft", "gradient_clip_val must be > 0", "got -1", trainer__gradient_clip_val=-1),
    "clipping by nan": run("sft", "gradient_clip_val must be > 0", "nan", trainer__gradient_clip_val=".nan"),
    "clipping of nothing": run("sft", "'norm' clips nothing", trainer__gradient_clip_algorithm="norm"),
    "yes rate": run("random_judge", "yes_rate must be in (0, 1)", stage__judge__init_args__yes_rate=1.5),
    "epochs count from 1": run("c_sft", "at_epochs counts from 1", stage__schedule__at_epochs="[0]"),
    "a schedule that never redraws": run(
        "c_sft", "never redraws", "or use SFTStage", stage__schedule__every_n_epochs=0
    ),
    "replay said to Regrow": run(
        "c_sft", "--regrow.at_epochs", "did you mean model.init_args.schedule.at_epochs", regrow__at_epochs="[1]"
    ),
    "replay said to Regrow in a config": config("regrow-says-when.yaml", "every_n_epochs", "model.init_args.schedule"),
    "batch size 0": run("sft", "batch_size must be >= 1", data__batch_size=0),
    "prompts a cell 0": gap("per_cell must be >= 1, got 0", per_cell=0),
    "LoRA rank": run("sft", "lora_rank must be >= 0", stage__model__init_args__lora_rank=-1),
    "no accumulation": run("sft", "accumulate_grad_batches must be >= 1", trainer__accumulate_grad_batches=0),
    "half precision throughout": run("sft", "precision '16-true'", "bf16-mixed", trainer__precision="16-true"),
    "spawned processes": run("sft", "'ddp_spawn'", "use ddp", trainer__strategy="ddp_spawn"),
    "forked processes": run("sft", "'ddp_fork'", "use ddp", trainer__strategy="ddp_fork"),
    "processes of a notebook": run("sft", "'ddp_notebook'", "use ddp", trainer__strategy="ddp_notebook"),
    "spawned processes by class": run(
        "sft",
        "'spawn'",
        "use ddp",
        trainer__strategy="lightning.pytorch.strategies.DDPStrategy",
        trainer__strategy__init_args__start_method="spawn",
    ),
    "guidance beyond numbers": gap("cfg must be >= 1 and at most 1000", cfg="1e38"),
    "guidance beyond numbers in a run": run("sft", "cfg must be >= 1 and at most", regrow__plan__sampling__cfg="1e38"),
    "demo of a negative seed": Mistake(["demo", "--seed", "-1", "--out", "new"], ["--seed must be in", "got -1"]),
    "summary in a file": run("sft", "--summary.folder", "'seen.txt'", "is no folder", summary__folder="seen.txt"),
    "checkpoints under a file": run("sft", "'seen.txt'", "is no folder", checkpoint__folder="seen.txt/checkpoints"),
    "figures of validate in a folder": run("sft", "--gap_out 'full'", "JSON file", verb="validate", gap_out="full"),
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
    "checkpoint too deep": folder("too-deep", "num_hidden_layers = 1000000000", "restore it"),
    "checkpoint with an adapter inside": folder("adapter-inside", "1 weights belong to no part of Janus", "'lora_A'"),
    "checkpoint without pad token": folder("unpadded", "tokenizer_config.json names no pad_token"),
    "checkpoint without template": folder("untold", "no chat template", "chat_template.jinja of deepseek-community"),
    "checkpoint with code": folder("coded", "does not load as Janus"),
    "checkpoint with a template that breaks out": folder("template", "does not load as Janus"),
    "checkpoint from a URL": folder("https://example.org/janus", "is a URL"),
    "checkpoint of a demo": Mistake(["demo", "--checkpoint", "full", "--out", "new"], ["'full'", "no config.json"]),
    "init_from missing": start("nope.ckpt", "no such file"),
    "init_from a URL": start("https://example.org/a.ckpt", "is a URL"),
    "init_from a bare pickle": start("bare.ckpt", "nothing in it was run"),
    "init_from with code": start("bomb.ckpt", "nothing in it was run"),
    "init_from another model": start("other.ckpt", "another model"),
    "init_from only weights": start("weights.ckpt", "not a Lightning checkpoint"),
    "ckpt_path missing": resume("nope.ckpt", "no such file"),
    "ckpt_path last, without one": resume("last", "no such file"),
    "ckpt_path junk": resume("junk.ckpt", "nothing in it was run"),
    "ckpt_path cut off": resume("cut.ckpt", "nothing in it was run"),
    "ckpt_path with a flipped byte": resume("flipped.ckpt", "is damaged: the checksum of its part"),
    "init_from with a flipped byte": start("flipped.ckpt", "is damaged: the checksum of its part"),
    "ckpt_path with weights of NaN": resume("not-finite.ckpt", "the weights 'model.x' are not finite"),
    "init_from weights of NaN": start("not-finite.ckpt", "the weights 'model.x' are not finite"),
    "ckpt_path with code": resume("bomb.ckpt", "nothing in it was run"),
    "ckpt_path a bare pickle": resume("bare.ckpt", "nothing in it was run", verb="validate"),
    "ckpt_path only weights": resume("weights.ckpt", "not a Lightning checkpoint", verb="predict"),
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
    "prompts a pipe": prompts("pipe.txt", "it is a pipe"),
    "prompts without an end": prompts("zero.jsonl", "it is a device"),
    "prompts with an infinite truth": prompts("infinite.jsonl", "line 1", "1e999 is too large"),
    "prompt of a megabyte": prompts("megabyte.txt", "line 1", "characters"),
    "prompt longer than the context": gap("a red circle and", "the context holds", prompts="long.txt"),
    "prompt with an unknown word": gap("'a red zebra'", "no word 'zebra'", prompts="zebra.txt"),
    "training on no prompt": run("sft", "holds no prompt", data__prompts="empty.txt", data__eval_prompts="shapes"),
    "training on an unknown word": run(
        "sft", "no word 'zebra'", data__prompts="zebra.txt", data__eval_prompts="shapes"
    ),
    "evaluating on an unknown word": run("sft", "no word 'zebra'", verb="validate", data__eval_prompts="zebra.txt"),
    "evaluating on what is trained on": run("sft", "also trained on", data__prompts="seen.txt"),
    "evaluating on what is trained on, composed otherwise": run(
        "sft", "also trained on", data__prompts="decomposed.txt", data__eval_prompts="composed.txt"
    ),
    "evaluating on what is trained on, but for what nobody sees": run(
        "sft", "also trained on", data__prompts="invisible.txt", data__eval_prompts="seen.txt"
    ),
    "a text file for both": run(
        "sft",
        "also trained on",
        "name other prompts as data.eval_prompts",
        data__prompts="seen.txt",
        data__eval_prompts="seen.txt",
    ),
    "an audit that leaves nothing": Mistake(
        ["prompts", "audit", "seen.txt", "seen.txt", "--out", "new.jsonl"], ["would be empty", "data.eval_prompts"]
    ),
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
ANOTHER = "pool-of-another"
JUDGES = {
    "unknown judge verb": judge("exprt", "full", "exprt", "did you mean 'export'"),
    "no judge verb": Mistake(["judge"], ["export", "agreement"]),
    "export from nothing": judge("export", "nowhere", "nowhere", "no such folder", checkpoint=JANUS),
    "export from another folder": judge("export", "full", "full", "has no pool.json", checkpoint=JANUS),
    "export another model's pool": judge("export", ANOTHER, ANOTHER, "belongs to model", checkpoint=JANUS, out="new"),
    "export into a full folder": judge("export", ANOTHER, "full is a symbolic link", checkpoint=JANUS, out="full"),
    "export drawings into their pool": judge(
        "export", ANOTHER, "lies in the pool", checkpoint=JANUS, out=f"{ANOTHER}/x"
    ),
    "export nothing": judge("export", ANOTHER, "n must be >= 1, got 0", checkpoint=JANUS, n=0),
    "import from nothing": sheet("nope.csv", "no such file"),
    "import what is no sheet": sheet("semicolons.csv", "no column 'candidate_id'", "commas"),
    "import latin": sheet("latin.csv", "not UTF-8 at byte 22"),
    "import maybe": sheet("maybe.csv", "line 3", "yes or no, got 'maybe'"),
    "import a word said twice": sheet("rated-twice.csv", "line 3", "'x' is rated twice", "rater"),
    "import nobody's word": sheet("unrated.csv", "nobody has rated"),
    "import with a quote that stays open": sheet("open-quote.csv", "line 4", "broken CSV"),
    "import with a quote that closes late": sheet("swallowed.csv", "line 3", "'comment' spans several lines"),
    "import of two verdicts": sheet("two-verdicts.csv", "line 1", "two columns 'verdict'"),
    "import of a short row": sheet("short-row.csv", "line 2", "needs 3 fields"),
    "import of a long row": sheet("long-row.csv", "line 2", "needs 2 fields"),
    "import of a verdict on nothing": sheet("nameless.csv", "line 2", "give the candidate_id"),
    "import from a pipe": sheet("pipe.csv", "it is a pipe"),
    "import a tie": Mistake(["judge", "import", ANOTHER, "tie.csv"], ["'x' has as many yes as no"]),
    "import a stranger": Mistake(["judge", "import", ANOTHER, "stranger.csv"], ["not in", "'a unicorn@0.0'"]),
    "import the model's word": Mistake(
        ["judge", "import", ANOTHER, "stranger.csv", "--name", "self"], ["'self' cannot name", "another name"]
    ),
    "import into an altered pool": Mistake(
        ["judge", "import", "pool-altered", "stranger.csv"], ["judgments.parquet is damaged"]
    ),
    "agreement in nothing": judge("agreement", "nowhere", "nowhere", "no such folder"),
    "agreement with a stranger": judge("agreement", ANOTHER, "no verdict of 'ann'", "oracle, self", judges="self,ann"),
    "agreement of one": judge("agreement", ANOTHER, "two judges or more", judges="self,self"),
    "judge from a URL": run(
        "sft",
        "is a URL",
        stage__external="unigap.judges.VQAJudge",
        stage__external__init_args__checkpoint="https://example.org/qwen",
    ),
    "judge behind a server that is down": run(
        "sft",
        "server 'http://127.0.0.1:9/v1': no connection",
        "start the server, or correct url",
        stage__external="unigap.judges.OpenAIJudge",
        stage__external__init_args__url="http://127.0.0.1:9/v1",
        stage__external__init_args__model="qwen",
    ),
    "gap by a judge behind no address": gap(
        "url must be the base URL of a server",
        **{"external": "unigap.judges.OpenAIJudge", "external.url": "localhost:8000", "external.model": "qwen"},
    ),
    "judge with a key for the name of a variable": run(
        "sft",
        "must be the NAME of an environment variable",
        stage__external="unigap.judges.OpenAIJudge",
        stage__external__init_args__url="http://127.0.0.1:9/v1",
        stage__external__init_args__model="qwen",
        stage__external__init_args__key_variable="sk-0123",
    ),
    "a pool asked by no such judge": judge("ask", ANOTHER, "judge", judge="unigap.judges.NoJudge"),
    "a pool asked by people": judge("ask", ANOTHER, "arrive later", judge="unigap.judges.HumanJudge"),
    "images from nowhere": images("nowhere", "'images/nowhere'", "no such file or folder"),
    "images from a URL": Mistake(["pool", "import", "https://example.org/a", "imported"], ["is a URL", "download it"]),
    "images without captions": images("uncaptioned", "1 of 1 images have no caption", "'a.txt'"),
    "images with an empty caption": images("empty", "a.txt' is empty", "write what the image shows"),
    "a shard that is none": images("broken.tar", "'images/broken.tar'", "no tar file"),
    "images that are none": images("torn.csv", "line 2", "uncaptioned/a.png", "cannot be read"),
    "images that are gone": images("gone.jsonl", "line 1", "nope.png", "no such file"),
    "images in odd columns": images("odd.csv", "no known layout: left, right", "file_name and text"),
    "half a preference": images("halves.jsonl", "line 1", "lists of two"),
    "a preference of two": images("label.jsonl", "line 1", "label_0 must be 0, 0.5 for a tie, or 1, got '2'"),
    "images of no words": images("untold.jsonl", "line 1", "'text' must be a non-empty string"),
    "images by number": images("no-image.jsonl", "line 1", "holds no image"),
    "images of no table": images("broken.parquet", "'images/broken.parquet'", "cannot be read"),
    "images in another file": images("../mine/page.html", ".html is not read", ".jsonl"),
    "images of unknown words": images("unread.jsonl", "unicorn"),
    "images judged by the model itself": images("gone.jsonl", "judge_name 'self'", "choose another", judge_name="self"),
    "images in a shape": images("gone.jsonl", "shape", "squash", shape="squash"),
    "images into a full folder": Mistake(
        ["pool", "import", "images/gone.jsonl", "full", "--checkpoint", JANUS], ["full", "not an empty folder"]
    ),
    "images measured backwards": images("gone.jsonl", "measured must be >= 0, got -1", measured=-1),
    "images with prompts over a file": images("gone.jsonl", "'full/notes.txt'", prompts_out="full/notes.txt"),
    "nothing asked": judge("ask", "nowhere", "nowhere", "no such folder", judge="unigap.judges.RandomJudge"),
    "scales of nothing": judge("scales", "nowhere", "nowhere", "no such folder"),
    "scales of a stranger": judge("scales", ANOTHER, "no verdict of 'ann'", "oracle, self", judges="ann"),
    "scales over another file": judge("scales", ANOTHER, "'full/notes.txt'", "stays as it is", out="full/notes.txt"),
    "critique by the model itself": run(
        "sft",
        "SelfJudge",
        "ExplainingJudge",
        stage__judge="unigap.judges.CritiqueJudge",
        stage__judge__init_args__judge="unigap.judges.SelfJudge",
    ),
    "rubric of no number": run(
        "sft",
        "'rubric.csv', line 2",
        "'weight' must be a number other than 0, got 'much'",
        stage__judge="unigap.judges.RubricJudge",
        stage__judge__init_args__path="rubric.csv",
        stage__judge__init_args__judge="unigap.judges.SelfJudge",
    ),
    "mixture by no scales": run(
        "sft",
        "'mine/figures.json'",
        "needs 'mean', 'std' (above 0) and 'n' for each judge",
        stage__judge="unigap.judges.MixtureJudge",
        stage__judge__init_args__judges="[{class_path: unigap.judges.SelfJudge}, "
        "{class_path: unigap.judges.OracleJudge}]",
        stage__judge__init_args__scales="mine/figures.json",
    ),
    "judge without a prompt": run(
        "sft",
        "no {prompt}",
        stage__external="unigap.judges.VQAJudge",
        stage__external__init_args__checkpoint=JANUS,
        stage__external__init_args__question="good?",
    ),
    "questions cut off": run(
        "sft",
        "'question-cut.jsonl'",
        "line 2",
        "not JSON",
        stage__judge="unigap.judges.DecomposedJudge",
        stage__judge__init_args__questions="unigap.judges.QuestionFile",
        stage__judge__init_args__questions__init_args__path="question-cut.jsonl",
    ),
    "questions in a circle": run(
        "sft",
        "'question-circle.jsonl'",
        "in a circle",
        stage__judge="unigap.judges.DecomposedJudge",
        stage__judge__init_args__questions="unigap.judges.QuestionFile",
        stage__judge__init_args__questions__init_args__path="question-circle.jsonl",
    ),
    "questions from a pipe": run(
        "sft",
        "'pipe.jsonl'",
        "it is a pipe",
        stage__judge="unigap.judges.DecomposedJudge",
        stage__judge__init_args__questions="unigap.judges.QuestionFile",
        stage__judge__init_args__questions__init_args__path="pipe.jsonl",
    ),
    "ensemble of one": run(
        "sft",
        "two judges or more, got 1",
        stage__judge="unigap.judges.EnsembleJudge",
        stage__judge__init_args__judges="[{class_path: unigap.judges.SelfJudge}]",
    ),
    "people who said nothing": run(
        "sft",
        "'unrated.csv'",
        "nobody has rated",
        stage__judge="unigap.judges.HumanJudge",
        stage__judge__init_args__path="unrated.csv",
    ),
}
GENEVAL, DSG = "geneval:evaluation_metadata.jsonl", "dsg:dsg-1k-anns.csv"
BENCHMARKS = {
    "unknown prompt set": gap("unknown prompt set 'genevl'", "did you mean 'geneval'", prompts="genevl:x.jsonl"),
    "prompt set from a URL": gap("is a URL", prompts="geneval:https://example.org/a.jsonl"),
    "prompts from a URL": gap("is a URL", prompts="https://example.org/a.txt"),
    "folder from a URL": gap("is a URL", prompts="t2i-compbench:s3://bucket"),
    "training on what is also validated on": run(
        "sft",
        "1 evaluation prompts are also trained on",
        "unigap prompts audit",
        data__prompts="t2i-compbench:sets/t2i_compbench",
        data__per_cell="null",
        data__eval_per_cell="null",
    ),
    "training on words unknown": run(
        "sft", "no word 'photo'", data__prompts="geneval:sets/evaluation_metadata.jsonl", data__eval_prompts="shapes"
    ),
    "no prompts verb": Mistake(["prompts"], ["import", "audit"]),
    "unknown prompts verb": Mistake(["prompts", "imprt", "x"], ["imprt", "did you mean 'import'"]),
    "GenEval missing": prompt_set("geneval", "nope.jsonl", "no such file"),
    "GenEval of another kind": prompt_set("geneval", "empty.csv", "unknown kind '.csv'", ".jsonl"),
    "GenEval of other rows": prompt_set("geneval", "no-geneval.jsonl", "line 2", "'include' is empty or missing"),
    "GenEval with a word for a count": prompt_set("geneval", "count.jsonl", "line 2", "'count'", "whole number"),
    "GenEval with a position to nothing": prompt_set("geneval", "position.jsonl", "line 2", "'position' must be"),
    "GenEval with a region": prompt_set("geneval", "region.jsonl", "line 2", "'region' is not understood"),
    "GenEval with a size": prompt_set("geneval", "size.jsonl", "line 2", "'size' is not understood"),
    "GenEval from a pipe": Mistake(["prompts", "import", "geneval:pipe.jsonl"], ["'pipe.jsonl'", "it is a pipe"]),
    "Science-T2I from a device": Mistake(["prompts", "import", "science-t2i:zero.jsonl"], ["it is a device"]),
    "GenEval of lists": prompt_set("geneval", "list.jsonl", "line 1", "needs an object", "got list"),
    "T2I-CompBench of nothing": prompt_set("t2i-compbench", "no-sets", "color_train.txt"),
    "DSG empty": prompt_set("dsg", "empty.csv", "no column 'item_id'", "it has: none"),
    "DSG without rows": prompt_set("dsg", "header.csv", "holds no prompt"),
    "DSG without a column": prompt_set("dsg", "no-column.csv", "no column 'proposition_id'", "it has: item_id, text"),
    "DSG with an open quote": prompt_set("dsg", "open.csv", "line 2", "broken CSV"),
    "DSG with a short row": prompt_set("dsg", "short.csv", "line 2", "needs 9 fields"),
    "DSG with a word for a number": prompt_set("dsg", "number.csv", "line 2", "proposition_id", "'one'"),
    "DSG with two texts": prompt_set("dsg", "text-changes.csv", "line 3", "'x_1' has another text"),
    "DSG with a question twice": prompt_set("dsg", "twice.csv", "line 3", "proposition 1 of item 'x_1' occurs twice"),
    "TIFA an object": prompt_set("tifa", "object.json", "needs a list of objects"),
    "TIFA cut off": prompt_set("tifa", "cut.json", "not JSON"),
    "TIFA without captions": prompt_set("tifa", "no-caption.json", "row 1", "'caption'", "got nothing"),
    "TIFA with a word for choices": prompt_set("tifa", "choices.json", "row 1", "'choices' must be a list"),
    "Science-T2I of junk": prompt_set("science-t2i", "junk.parquet", "not a valid Parquet file"),
    "Science-T2I missing": prompt_set("science-t2i", "nope.parquet", "no such file"),
    "Science-T2I without a column": prompt_set("science-t2i", "no-column.parquet", "no column 'implicit_prompt'"),
    "datasets without the column": prompt_set("datasets", "no-column.parquet#caption", "'caption'", "it has: text"),
    "datasets of junk": prompt_set("datasets", "junk.parquet#text"),
    "datasets of a pickle": prompt_set("datasets", "table.pkl#text", "unknown kind '.pkl'"),
    "datasets with pickles for texts": prompt_set("datasets", "pickled.parquet#text", "row 1", "got bytes"),
    "datasets with a card that leads away": prompt_set("datasets", "card#text", "README.md names data at a URL"),
    "datasets of code": prompt_set("datasets", "script#text"),
    "datasets of nothing": Mistake(["prompts", "import", "datasets:./nowhere#text"], ["'./nowhere'", "no such file"]),
    "prompts with a word for a truth": Mistake(
        ["prompts", "import", "sets/truth.jsonl"], ["line 1", "'truth' must be an object"]
    ),
    "import over a file": Mistake(["prompts", "import", "seen.txt", "--out", "twice.jsonl"], ["'twice.jsonl' exists"]),
    "import into a pool": Mistake(
        ["prompts", "import", "seen.txt", "--out", "pool-of-another/a.jsonl"], ["lies in the pool"]
    ),
    "T2I-CompBench with a pipe": Mistake(["prompts", "import", "t2i-compbench:mine"], ["color_val", "it is a pipe"]),
    "datasets from a pipe": Mistake(["prompts", "import", "datasets:pipe.jsonl#text"], ["it is a pipe"]),
    "import into nowhere": Mistake(["prompts", "import", "seen.txt", "--out", "no/a.jsonl"], ["in an existing folder"]),
    "import an unknown split": Mistake(
        ["prompts", "import", "t2i-compbench:sets/t2i_compbench", "--split", "tset"], ["no prompt in split 'tset'"]
    ),
    "audit of nothing": Mistake(["prompts", "audit", "seen.txt", "nope.txt"], ["'nope.txt'", "no such file"]),
    "audit too near": Mistake(["prompts", "audit", "seen.txt", "seen.txt", "--near", "9"], ["near must be in (0, 1]"]),
    "no benchmark to score": Mistake(["score"], ["geneval", "compbench", "dsg"]),
    "score without answers": Mistake(["score", "dsg", "--prompts", "seen.txt"], ["required", "answers"]),
    "answers missing": score("geneval", GENEVAL, "nope", "answers 'sets/nope.jsonl'", "no such file"),
    "answers empty": score("geneval", GENEVAL, "answers-empty", "holds no row"),
    "answers to nobody": score("geneval", GENEVAL, "answers-nobody", "line 1", "no prompt has the id '00009'"),
    "answers with a box inside out": score("geneval", GENEVAL, "answers-box", "line 1", "is empty"),
    "answers with a word for a score": score("geneval", GENEVAL, "answers-score", "line 1", "'score' must be a number"),
    "answers without objects": score("geneval", GENEVAL, "answers-nothing", "line 1", "needs 'objects'"),
    "answers without a colour": score("geneval", GENEVAL, "answers-color", "line 1", "'bus' needs a 'color'"),
    "answers without a question": score("dsg", DSG, "answers-dsg", "line 1", "question 2 of 'whoops_5' has no answer"),
    "answers from a pipe": Mistake(
        ["score", "geneval", "--prompts", "geneval:sets/evaluation_metadata.jsonl", "--answers", "pipe.jsonl"],
        ["'pipe.jsonl'", "it is a pipe"],
    ),
    "answers to a truth that is not scored": score("geneval", "sets/own-region.jsonl", "answers-own", "'region'"),
    "TIFA answers without a question": score(
        "tifa", "tifa:tifa_v1.0_question_answers.json", "answers-tifa", "question 2"
    ),
    "WISE ratings out of range": score(
        "wise", "wise:wise.json", "answers-wise", "'consistency' must be between 0 and 2"
    ),
    "DSG answers by GenEval's rules": score("geneval", DSG, "answers-dsg", "no GenEval truth"),
    "GenEval answers by DSG's rules": score("dsg", GENEVAL, "answers-nothing", "no DSG questions"),
    "GenEval answers by another rule": score("compbench", GENEVAL, "answers-nothing", "no category of T2I-CompBench"),
    "figures into a folder": Mistake(
        ["score", "dsg", "--prompts", "seen.txt", "--answers", "seen.txt", "--out", "full"], ["'full'", "JSON file"]
    ),
}
OTHERS_FILE = ["score", "geneval", "--prompts", GENEVAL.replace(":", ":sets/"), "--answers", "sets/answers-color.jsonl"]
FOLDERS = {
    "demo over a file of that name": Mistake(["demo", "--out", "mine/demo-by-name", "--overwrite"], ["is not empty"]),
    "demo over a demo with notes": Mistake(
        ["demo", "--out", "mine/demo-with-notes", "--overwrite"], ["'gallery/notes.txt'", "move it away"]
    ),
    "demo in a pool": Mistake(["demo", "--out", "pool-of-another/demo"], ["lies in the pool", "outside it"]),
    "demo of no checkpoint over a demo": Mistake(
        ["demo", "--out", "mine/demo", "--overwrite", "--checkpoint", "full"], ["'full'", "no config.json"]
    ),
    "figures over a checkpoint": gap("'mine/other.ckpt'", "holds something else", out="mine/other.ckpt"),
    "figures over a summary": gap("run-text/summary.json'", "holds something else", out="run-text/summary.json"),
    "figures over others' figures": Mistake([*OTHERS_FILE, "--out", "mine/figures.json"], ["holds something else"]),
    "figures through a link": Mistake([*OTHERS_FILE, "--out", "mine/link.json"], ["is a symbolic link"]),
    "figures into a device": Mistake([*OTHERS_FILE, "--out", "/dev/null"], ["'/dev/null'", "it is a device"]),
    "figures into a pool": Mistake([*OTHERS_FILE, "--out", "pool-of-another/a.json"], ["lies in the pool"]),
    "figures of validate over a summary": run(
        "sft", "run-text/summary.json'", "holds something else", verb="validate", gap_out="run-text/summary.json"
    ),
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
    "report with a pipe for an image": report("run-pipe", "00-before.png is a pipe"),
    "report without an image": report("run-missing", "cannot read the image"),
    "report with an image outside": report("run-outside", "lies outside"),
    "report over a page of others": Mistake(["report", "run-cut", "--out", "mine/page.html"], ["holds something else"]),
    "report of NaN": report("run-nan", "summary.json.seed must be a whole number"),
    "report nested deep": report("run-deep", "summary.json is damaged"),
    "report of an edited summary": report("run-edited-summary", "summary.json is damaged or was edited"),
    "report of edited curves": report("run-edited-curves", "curves.json is damaged or was edited"),
    "report of an edited gallery": report("run-edited-gallery", "gallery.json is damaged or was edited"),
    "report of edited verdicts": report("run-edited-rejudged", "rejudged.json is damaged or was edited"),
    "report with edited seals": report("run-edited-seals", "seals.json is damaged"),
    "report without its summary": report("run-without-summary", "summary.json is missing though seals.json names it"),
    "report without its curves": report("run-without-curves", "curves.json is missing though"),
    "report without its gallery": report("run-without-gallery", "gallery.json is missing though"),
    "report with a flipped byte in an image": report("run-flipped-picture", "00-before.png is not a whole PNG image"),
    "report of a FIFO": report("run-fifo", "summary.json is a pipe"),
    "report of a device": report("run-device", "summary.json is a device"),
    "report with a FIFO for an image": report("run-fifo-picture", "00-before.png is a pipe"),
    "report cut off": report("run-half", "summary.json is damaged"),
}
STAGES = {
    "pretraining data for a stage": run(
        "sft", "train on a pool", data="unigap.worlds.shapes.lesson_data.ShapesLessons"
    ),
    "share of wrong captions": pretrain("pretrain", "caption_noise must be in [0, 1], got 2", data__caption_noise=2),
    "no questions": pretrain("pretrain", "questioned_share must be in (0, 1], got 0", data__questioned_share=0),
    "negative instruction": pretrain("pretrain", "instruct_steps must be >= 0, got -1", data__instruct_steps=-1),
    "steps of the decay": pretrain("pretrain", "decay_steps must be >= 0, got -1", stage__decay_steps=-1),
    "steps between measurements": pretrain(
        "pretrain", "every_n_steps must be >= 1, got 0", trainer__callbacks__every_n_steps=0
    ),
    "curve of another stage": run(
        "sft",
        "PretrainingCurve",
        "PretrainStage",
        trainer__callbacks="unigap.worlds.shapes.pretraining_curve.PretrainingCurve",
    ),
    "a tokenizer of another family": pretrain(
        "pretrain", "tokenizer_from", "another family", stage__tokenizer_from="shapes-show-o"
    ),
    "two models to pretrain": pretrain(
        "pretrain", "set untrained or model", stage__model="Janus", stage__model__init_args__checkpoint=JANUS
    ),
    "a trained model with a tokenizer phase": pretrain("pretrain", "tokenizer_steps", **FROM_MODEL),
    "nothing accepted": run("ceiling", "accepted nothing"),
    "a group of one": run("grpo", "2 or more, got 1", "regrow.plan.candidates", regrow__plan__candidates=1),
    "a clip of nothing": run("grpo", "clip_low must be", stage__objective__init_args__clip_low=0.0),
    "a clip below nothing": run("grpo", "clip_high > 0", stage__objective__init_args__clip_high=-0.2),
    "a reward without a judge": run(
        "grpo", "a reward without a judge", stage__objective__init_args__reward__weight=0.0
    ),
    "greedy groups": run("grpo", "temperature 0 is greedy", regrow__plan__sampling__temperature=0.0),
    "parts of the discarded prompts": run("grpo", "goes with redraw=all", stage__schedule__redraw="discarded"),
    "a ratio without a likelihood": run(
        "grpo",
        "exact likelihood",
        "cfg 3",
        "ShowO only estimates",
        stage__model="unigap.models.showo.ShowO",
        stage__model__init_args__checkpoint="shapes-show-o",
        regrow__plan__sampling__cfg=3.0,
    ),
    "NFT of odds": run("nft", "rewards in [0, 1]", stage__objective__init_args__reward__of="logit"),
    "everything accepted": run(
        "dpo", "accepted all", "raise the threshold", stage__objective__init_args__threshold="1.0e-30"
    ),
}
TOLD = {
    "unknown export": Mistake(["export", "pol", "full"], ["pol", "did you mean 'pool'"]),
    "export to nowhere": Mistake(["export", "pool", "full"], ["export.pool.out"]),
    "export of nothing": Mistake(["export", "pool", "nowhere", "--out", "new"], ["no pool at nowhere"]),
    "export of an altered pool": Mistake(
        ["export", "pool", "pool-altered", "--out", "new", "--checkpoint", JANUS], ["judgments.parquet is damaged"]
    ),
    "export of another model's pool": Mistake(["export", "pool", "pool-of-another", "--out", "new"], ["belongs to"]),
    "export under a licence by its long name": Mistake(
        ["export", "pool", "pool-altered", "--out", "new", "--license", "CC BY 4.0"], ["'CC BY 4.0'", "cc-by-4.0"]
    ),
    "export into a pool": Mistake(
        ["export", "model", "full", "--out", "pool-of-another/new"], ["lies in the pool", "outside it"]
    ),
    "export of a pool into itself": Mistake(
        ["export", "pool", "pool-of-another", "--out", "pool-of-another/new"], ["lies in the pool"]
    ),
    "export through a link": Mistake(["export", "model", "full", "--out", "mine/link.json"], ["is a symbolic link"]),
    "export of no run": Mistake(["export", "model", "full", "--out", "new"], ["full holds no last.ckpt"]),
    "export of a lone checkpoint": Mistake(
        ["export", "model", "other.ckpt", "--out", "new"], ["config.yaml is missing"]
    ),
    "export of weights of NaN": export_model("trained-to-nothing", "the weights 'model.x' are not finite"),
    "export of a flipped checkpoint": export_model("trained-and-flipped", "is damaged: the checksum of its part"),
    "export with a config that multiplies": export_model("trained-laughing", "config.yaml", "aliases make more than"),
    "export with an edited config": export_model("trained-edited", "config.yaml is damaged or was edited"),
    "compare a run without its summary": Mistake(
        ["compare", "run-text", "run-without-summary"], ["summary.json is missing though"]
    ),
    "compare one run": Mistake(["compare", "full"], ["two runs or more"]),
    "compare nothing": Mistake(["compare", "full", "nowhere"], ["full holds no last.ckpt"]),
    "compare a run with itself": Mistake(["compare", "run-text", "run-jpeg", "run-text"], ["run-text is given twice"]),
    "compare what is damaged": Mistake(["compare", "run-text", "run-half"], ["summary.json is damaged"]),
    "compare into a page of others": Mistake(
        ["compare", "run-text", "run-jpeg", "--out", "mine/page.html"], ["'mine/page.html' holds something else"]
    ),
    "compare into a folder": Mistake(["compare", "run-text", "run-jpeg", "--out", "full"], ["'full' is a folder"]),
    "unknown option of compare": Mistake(["compare", "run-text", "--aut", "x"], ["--aut", "did you mean 'out'"]),
    "a gallery of nothing": run(
        "sft",
        "Gallery.prompts must be >= 1, got 0",
        trainer__callbacks="unigap.callbacks.Gallery",
        trainer__callbacks__prompts=0,
    ),
    "artifacts without W&B": run("sft", "Artifacts are kept by W&B", trainer__callbacks="unigap.callbacks.Artifacts"),
}
CALIBRATION = {
    "draw nothing": draw(" ", "empty prompt"),
    "draw a missing file": draw("nope.txt", "nope.txt", "no such file"),
    "draw words unknown": draw("a unicorn", "unicorn"),
    "draw none": draw("a red circle", "n must be >= 1, got 0", n=0),
    "draw fewer than it keeps": draw("a red circle", "keep must be between 1 and n = 2, got 3", n=2, keep=3),
    "draw colder than greedy": draw("a red circle", "temperature must be >= 0", temperature=-1),
    "draw into a full folder": draw("a red circle", "full is a symbolic link", out="full"),
    "draw into a pool": draw("a red circle", "lies in the pool", out="pool-of-another/images"),
    "draw by people": draw("a red circle", "arrive later", judge="unigap.judges.HumanJudge"),
    "draw of two models": draw("a red circle", "--run names the models", run="nowhere"),
    "draw a file of a run": Mistake(["draw", "sets.txt", "--run", "nowhere"], ["--run shows one prompt"]),
    "draw of no run": Mistake(["draw", "a red circle", "--run", "nowhere"], ["nowhere"]),
    "an unknown benchmark": bench("genevil", GENEVAL, "unknown benchmark 'genevil'", "did you mean 'geneval'"),
    "a benchmark without prompts": Mistake(["bench", "geneval"], ["required", "prompts"]),
    "a benchmark of a missing file": bench("dsg", "dsg:nope.csv", "no such file", vqa=SELF),
    "GenEval on DSG's prompts": bench("geneval", DSG, "no GenEval truth", **BOXES),
    "DSG on GenEval's prompts": bench("dsg", GENEVAL, "no DSG questions", vqa=SELF),
    "TIFA on DSG's prompts": bench("tifa", DSG, "no TIFA questions", vqa=SELF),
    "CompBench on DSG's prompts": bench("compbench", DSG, "not of T2I-CompBench++"),
    "DSG without a judge": bench("dsg", DSG, "asks a judge", "--vqa unigap.judges.VQAJudge"),
    "DSG by a detector": bench("dsg", DSG, "no use for --detector", vqa=SELF, **BOXES),
    "DSG by a judge of whole images": bench("dsg", DSG, "answers no questions", vqa="unigap.judges.RandomJudge"),
    "DSG by a judge that is no checkpoint": bench(
        "dsg", DSG, "no such folder", vqa="unigap.judges.VQAJudge", vqa__checkpoint="nowhere"
    ),
    "DSG by a server that is down": bench(
        "dsg",
        DSG,
        "server 'http://127.0.0.1:9/v1': no connection",
        vqa="unigap.judges.OpenAIJudge",
        vqa__url="http://127.0.0.1:9/v1",
        vqa__model="x",
    ),
    "WISE by a model that writes no text": bench("wise", "wise:wise.json", "writes no text", vqa=SELF),
    "WISE's numbers beyond its prompts": Mistake(
        ["prompts", "import", "wise:sets/wise-number.json"], ["wise-number.json'", "row 1", "from 1 to 1000"]
    ),
    "WISE without an explanation": Mistake(
        ["prompts", "import", "wise:sets/wise-text.json"], ["wise-text.json'", "row 1", "'Explanation' must be"]
    ),
    "WISE in an empty folder": Mistake(["prompts", "import", "wise:sets/no-sets"], ["'sets/no-sets'", "holds none of"]),
    "GenEval by a detector of other classes": bench(
        "geneval", GENEVAL, "'sets/detector'", "does not know 5 of the 6 classes", **BOXES
    ),
    "GenEval by a detector without names of classes": bench(
        "geneval",
        GENEVAL,
        "'sets/no-names'",
        "names no classes",
        detector=BOXES["detector"],
        detector__checkpoint="sets/no-names",
    ),
    "a detector that is sure of all": bench(
        "geneval", GENEVAL, "confidence must be between 0 and 1", **BOXES, detector__confidence=1.5
    ),
    "a benchmark of no images": bench("dsg", DSG, "candidates must be >= 1, got 0", n=0, vqa=SELF),
    "a benchmark into a full folder": bench("dsg", DSG, "full is a symbolic link", out="full", vqa=SELF),
    "a benchmark of images that are not there": bench("dsg", DSG, "nowhere", pool="nowhere", vqa=SELF),
    "a benchmark by people": bench("dsg", DSG, "arrive later", vqa=SELF, judge="unigap.judges.HumanJudge"),
    "a benchmark in words unknown": bench("dsg", DSG, "the model has no word", vqa=SELF),
    "calibrate beyond certainty": calibrate("precision must be", precision=1.5),
    "calibrate on too few": calibrate("n must be at least 4", n=2),
    "calibrate on a pipe": calibrate("'pipe.jsonl'", "it is a pipe", captions="pipe.jsonl"),
    "calibrate on no file": calibrate("nothing.jsonl", captions="nothing.jsonl"),
    "gap on no device": gap("device 'nowhere'", device="nowhere"),
    "gap in an odd precision": gap("unknown dtype 'float17'", dtype="float17"),
    "gap of two models": gap("--model and --checkpoint", model="unigap.models.janus.Janus"),
    "gap with a precision for a model of one's own": Mistake(
        ["gap", "--model", "unigap.models.janus.Janus", "--dtype", "bfloat16"], ["--dtype goes with --checkpoint"]
    ),
    "gap with an external judge who answers later": gap("arrive later", external="unigap.judges.HumanJudge"),
    "gap with no such external judge": gap("external", external="unigap.judges.NoJudge"),
    "calibrate in no world": calibrate("unknown world 'nowhere'", "shapes", world="nowhere"),
    "calibrate nothing": calibrate("nowhere", "no such folder", checkpoint="nowhere"),
}
MISTAKES = {
    **VERBS, **CONFIG_FILES, **FLAGS, **NUMBERS, **CHECKPOINTS, **PROMPTS, **POOLS, **JUDGES, **BENCHMARKS,
    **CALIBRATION, **FOLDERS, **STAGES, **TOLD,
}  # fmt: skip
