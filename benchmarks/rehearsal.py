"""Rehearse a whole run of a published model with random weights.

``python -m benchmarks.rehearsal --family janus-pro-1b`` writes a random checkpoint in the published layout, then runs
audit, gap, fit with LoRA and in full, a kill, the continued run, DPO, export, and loads the export in the family's own
library. Every phase runs in its own process. The command prints peak memory and seconds by phase, bytes on disk, and
which figures of docs/scale.md hold. It ends with status 1 if a phase or a figure fails.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors import safe_open

from benchmarks.published import FAMILIES, Size, size_of, size_options

UNIGAP = ("-m", "unigap")
MODELS = {
    "janus-pro-1b": "unigap.models.janus.Janus",
    "janus-pro-7b": "unigap.models.janus.Janus",
    "show-o": "unigap.models.showo.ShowO",
    "emu3": "unigap.models.emu3.Emu3",
}
LOADED_BY = {"show-o": "unigap (Show-o's own code is not a package)"}
TRAIN = ("a red bicycle", "two green cups on a table", "a dog left of a cat", "a blue bench and a yellow bowl")
TEST = ("three brown horses", "A red bicycle.")
"""The second one is also trained on: the audit has to find it."""
GB = 1e9
OVERHEAD = 2**20
"""Bytes of a checkpoint that are not weights or moments: names, digests and the state of the loop."""


@dataclass(frozen=True)
class Phase:
    """One process of the rehearsal.

    Attributes:
        name: Its name in the table.
        arguments: Arguments of the Python interpreter.
        status: Exit status that it must end with.
    """

    name: str
    arguments: Sequence[str]
    status: int = 0


@dataclass(frozen=True)
class Outcome:
    """What a phase used: ``seconds``, and ``peak`` resident memory in bytes."""

    name: str
    seconds: float
    peak: int


@dataclass(frozen=True)
class Figure:
    """A figure of docs/scale.md, computed from the parameters, and what this run found; both in bytes."""

    name: str
    computed: int
    found: int

    @property
    def holds(self) -> bool:
        """Whether the file has the computed bytes, and at most 1% and ``OVERHEAD`` more."""
        return self.computed <= self.found <= 1.01 * self.computed + OVERHEAD


class Failed(Exception):
    """A phase ended with another status than it should."""


def stage(
    family: str, folder: Path, objective: str, size: Size, accelerator: str = "cpu", **model: Any
) -> dict[str, Any]:
    """Return a config of ``unigap fit``: two epochs of ``objective`` with a judge that accepts half of all images."""
    options = {"checkpoint": str(folder / "checkpoint"), "gradient_checkpointing": True, **model}
    if family == "emu3":
        options["image_area"] = size.image_tokens * 64
    judge = {"class_path": "unigap.judges.RandomJudge", "init_args": {"yes_rate": 0.5}}
    sampling = {"cfg": 5.0, "top_k": 0}
    plan = {"candidates": 4, "sampling": sampling}
    return {
        "run": str(folder / objective.lower()),
        "model": {
            "class_path": f"unigap.stages.{objective}Stage",
            "init_args": {
                "model": {"class_path": MODELS[family], "init_args": options},
                "objective": {"class_path": f"unigap.objectives.{objective}"},
                # an untrained judge says the same of every image
                "judge": judge,
                "lr": 1e-4,
                "warmup_steps": 0,
            },
        },
        "data": {
            "class_path": "unigap.data.PoolData",
            "init_args": {"prompts": str(folder / "clean.jsonl"), "eval_prompts": str(folder / "test.txt")},
        },
        "regrow": {"plan": plan},
        "trainer": {
            "accelerator": accelerator,
            "devices": 1,
            "max_epochs": 2,
            "limit_train_batches": 1,
            "limit_val_batches": 0,
            "enable_model_summary": False,
            "enable_progress_bar": False,
        },
    }


def write_inputs(family: str, size: Size, folder: Path, accelerator: str = "cpu") -> None:
    """Write prompts and one config for each run."""
    (folder / "train.txt").write_text("\n".join(TRAIN) + "\n")
    (folder / "test.txt").write_text("\n".join(TEST) + "\n")
    adapter = {"lora_rank": 32, "dtype": "bfloat16"}
    for name, objective, model in (("lora", "SFT", adapter), ("full", "SFT", {}), ("dpo", "DPO", adapter)):
        config = stage(family, folder, objective, size, accelerator, **model)
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(config | {"run": str(folder / name)}))


def phases(family: str, size: Size, folder: Path, parts: Sequence[str], accelerator: str = "cpu") -> Iterator[Phase]:
    """Yield the phases in order; ``parts`` are those of lora, full and dpo that are wanted."""
    shape = ["--layers", str(size.layers), "--image_tokens", str(size.image_tokens), *["--narrow"] * size.narrow]
    checkpoint = str(folder / "checkpoint")
    yield Phase("write the checkpoint", ["-m", "benchmarks.published", family, checkpoint, *shape])
    train, test, clean = (str(folder / name) for name in ("train.txt", "test.txt", "clean.jsonl"))
    yield Phase("audit of the prompts", [*UNIGAP, "prompts", "audit", train, test, "--out", clean])
    if family != "emu3":  # the verb has no option for the size of an Emu3 image
        measured = ["--prompts", test, "--candidates", "2", "--dtype", "bfloat16", "--out", str(folder / "gap.json")]
        measured += ["--device", "cuda"] * (accelerator == "gpu")
        yield Phase("gap", [*UNIGAP, "gap", "--checkpoint", checkpoint, *measured])
    for part in parts:
        fit = ["fit", "--config", str(folder / f"{part}.yaml")]
        if part == "dpo":
            yield Phase("fit, DPO, LoRA", [*UNIGAP, *fit])
            continue
        killed = ["-m", "benchmarks.killed_run", "1", *fit]
        yield Phase(f"fit, SFT, {part}, killed in epoch 2", killed, status=-signal.SIGKILL)
        yield Phase(f"fit, SFT, {part}, continued", [*UNIGAP, *fit, "--resume", "must"])
    for part in parts:
        out = str(folder / f"{part}_export")
        yield Phase(f"export of {part}", [*UNIGAP, "export", "model", str(folder / part), "--out", out])
        yield Phase(f"load the export of {part}", ["-m", "benchmarks.reload", family, out, checkpoint])


def perform(phase: Phase, log: Path) -> Outcome:
    """Run a phase to its end.

    Raises:
        Failed: It ended with another status; names the end of its output.
    """
    start = time.perf_counter()
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([os.getcwd(), os.environ.get("PYTHONPATH", "")])}
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, *phase.arguments], stdout=output, stderr=subprocess.STDOUT, env=environment
        )
        _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != phase.status:
        end = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
        raise Failed(f"{phase.name}: status {process.returncode}, expected {phase.status}\n{end}")
    return Outcome(phase.name, time.perf_counter() - start, used.ru_maxrss * 1024)


def trained_parameters(family: str, folder: Path, part: str) -> int:
    """Return the number of parameters that train in a run, from the shapes in the checkpoint folder."""
    shapes = list(language_model_shapes(folder / "checkpoint"))
    if part == "full":
        return sum(torch.Size(shape).numel() for _, shape in shapes)
    rank = 32
    return sum(rank * sum(shape) for name, shape in shapes if len(shape) == 2 and "layernorm" not in name)


def language_model_shapes(checkpoint: Path) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield names and shapes of the shared LLM's layers and last norm."""
    for path in sorted(checkpoint.glob("*.safetensors")):
        with safe_open(path, "pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118  not a mapping
                inner = any(mark in name for mark in ("language_model.", "text_model.", "llm."))
                if inner and (".layers." in name or name.split(".")[-2] in ("norm", "final_layernorm")):
                    yield name, tuple(tensors.get_slice(name).get_shape())


def bytes_of(folder: Path) -> int:
    """Return the bytes of all files in a folder, or of a file."""
    files = folder.rglob("*") if folder.is_dir() else [folder]
    return sum(path.stat().st_size for path in files if path.is_file() and not path.is_symlink())


def figures(family: str, folder: Path, parts: Sequence[str]) -> Iterator[Figure]:
    """Yield what docs/scale.md says of the size of checkpoints: 12 bytes for each parameter that trains."""
    for part in parts:
        found = bytes_of(folder / part / "checkpoints" / "last.ckpt")
        yield Figure(f"checkpoint of {part}", 12 * trained_parameters(family, folder, part), found)


def report(outcomes: Sequence[Outcome], disk: Mapping[str, int], found: Sequence[Figure]) -> str:
    """Return the tables."""
    lines = ["| phase | seconds | peak GB |", "|---|---|---|"]
    lines += [f"| {phase.name} | {phase.seconds:.1f} | {phase.peak / GB:.2f} |" for phase in outcomes]
    lines += ["", "| on disk | GB |", "|---|---|", *(f"| {name} | {size / GB:.4f} |" for name, size in disk.items())]
    lines += ["", "| docs/scale.md | computed GB | found GB | |", "|---|---|---|---|"]
    for figure in found:
        verdict = "confirmed" if figure.holds else "NOT CONFIRMED"
        lines.append(f"| {figure.name} | {figure.computed / GB:.4f} | {figure.found / GB:.4f} | {verdict} |")
    return "\n".join(lines)


def rehearse(family: str, size: Size, folder: Path, parts: Sequence[str], accelerator: str = "cpu") -> bool:
    """Run all phases and print the tables; return whether every figure holds."""
    write_inputs(family, size, folder, accelerator)
    outcomes = []
    for number, phase in enumerate(phases(family, size, folder, parts, accelerator)):
        outcomes.append(perform(phase, folder / f"{number:02d}.log"))
        print(f"{phase.name}: {outcomes[-1].seconds:.1f} s, {outcomes[-1].peak / GB:.2f} GB", flush=True)
    places = {"checkpoint": folder / "checkpoint"}
    for part in parts:
        places |= {f"pool of {part}": folder / part / "pool", f"checkpoint of {part}": folder / part / "checkpoints"}
        places[f"export of {part}"] = folder / f"{part}_export"
    disk = {name: bytes_of(place) for name, place in places.items()}
    found = list(figures(family, folder, parts))
    loader = LOADED_BY.get(family, "transformers")
    shape = f"{size.layers} layers, {size.image_tokens} image tokens"
    print(f"\n{family}, {shape}, random weights; exports loaded by {loader}\n")
    print(report(outcomes, disk, found))
    record = {"phases": [vars(outcome) for outcome in outcomes], "disk": disk, "figures": [vars(f) for f in found]}
    (folder / "rehearsal.json").write_text(json.dumps(record, indent=2) + "\n")
    return all(figure.holds for figure in found)


def main(argv: list[str] | None = None) -> int:
    """Rehearse; return 0 if everything holds."""
    parser = argparse.ArgumentParser(description="A whole run of a published model with random weights.")
    parser.add_argument("--family", choices=FAMILIES, default="janus-pro-1b")
    parser.add_argument("--parts", nargs="+", choices=["lora", "full", "dpo"], default=["lora", "full", "dpo"])
    parser.add_argument("--accelerator", choices=["cpu", "gpu"], default="cpu", help="where gap and fit run")
    parser.add_argument("--folder", type=Path, help="empty folder to work in; default: a temporary one")
    size_options(parser)
    args = parser.parse_args(argv)
    size = size_of(args.family, args)
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            parser.error(f"{folder} is not empty")
        try:
            return 0 if rehearse(args.family, size, folder.resolve(), args.parts, args.accelerator) else 1
        except Failed as failure:
            print(failure, file=sys.stderr)
            return 1


if __name__ == "__main__":
    sys.exit(main())
