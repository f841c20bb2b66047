"""Compare methods and libraries that compute one Gram: time relative to a forward and backward pass, memory, error.

Run ``python -m benchmarks.entk``; ``--json FILE`` also writes the rows. The peers (opacus, TRAK) are optional: those
that are not installed are named and left out.

Shape suffixes: n samples; T positions; D width; H heads.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path

import torch
from torch import Tensor, nn

import theory
from benchmarks.process_memory import added_mib
from unigap.files.markdown import table

SAMPLES, LENGTH, WIDTH, DEPTH, HEADS, TEXT_TOKENS, CODES = 32, 64, 128, 4, 4, 256, 512
PEERS = {"opacus": "opacus", "opacus, by parameter": "opacus", "TRAK, no projection": "trak"}
PACKAGES = {"opacus": "opacus", "trak": "traker"}


class Block(nn.Module):
    """One pre-norm transformer block with explicit attention, so that every peer can differentiate it."""

    def __init__(self) -> None:
        """Create the layers."""
        super().__init__()
        self.norm, self.norm_mlp = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.q, self.k, self.v, self.o = (nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(4))
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x_nTD: Tensor) -> Tensor:
        """Map (n, T, D) to (n, T, D)."""
        n, length, _ = x_nTD.shape
        normed = self.norm(x_nTD)
        q, k, v = (layer(normed).view(n, length, HEADS, -1).transpose(1, 2) for layer in (self.q, self.k, self.v))
        future = torch.ones(length, length, dtype=torch.bool).triu(1)
        weights_nHTT = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).masked_fill(future, -torch.inf).softmax(-1)
        x_nTD = x_nTD + self.o((weights_nHTT @ v).transpose(1, 2).reshape(n, length, -1))
        out: Tensor = x_nTD + self.down(nn.functional.gelu(self.up(self.norm_mlp(x_nTD))))
        return out


class TwoHeads(nn.Module):
    """A trunk of one million parameters, shared by a head for image codes and a head for text tokens, as in Janus."""

    def __init__(self) -> None:
        """Create the layers."""
        super().__init__()
        self.text_tokens, self.codes = nn.Embedding(TEXT_TOKENS, WIDTH), nn.Embedding(CODES, WIDTH)
        self.positions = nn.Embedding(LENGTH, WIDTH)
        self.blocks = nn.Sequential(*(Block() for _ in range(DEPTH)))
        self.norm = nn.LayerNorm(WIDTH)
        self.text_head, self.code_head = nn.Linear(WIDTH, TEXT_TOKENS, bias=False), nn.Linear(WIDTH, CODES, bias=False)

    def forward(self, ids_nT: Tensor, generation: bool) -> Tensor:
        """Return the log-likelihood of each sequence, shape (n,)."""
        tokens = self.codes if generation else self.text_tokens
        inputs_nT = ids_nT[:, :-1]
        positions_nT = torch.arange(inputs_nT.shape[1]).expand_as(inputs_nT)
        hidden = self.norm(self.blocks(tokens(inputs_nT) + self.positions(positions_nT)))
        logits = (self.code_head if generation else self.text_head)(hidden)
        logps: Tensor = logits.log_softmax(-1).gather(-1, ids_nT[:, 1:, None]).sum((1, 2))
        return logps


def image_logp(model: nn.Module, ids_nT: Tensor) -> Tensor:
    """Return the log-likelihood of image codes, shape (n,)."""
    out: Tensor = model(ids_nT, True)
    return out


def text_logp(model: nn.Module, ids_nT: Tensor) -> Tensor:
    """Return the log-likelihood of text tokens, shape (n,)."""
    out: Tensor = model(ids_nT, False)
    return out


def setting(samples: int = SAMPLES) -> tuple[TwoHeads, list[theory.Source]]:
    """Return the model and its two sources."""
    torch.manual_seed(0)
    model = TwoHeads().eval()
    codes, texts = (torch.randint(size, (samples, LENGTH + 1)) for size in (CODES, TEXT_TOKENS))
    return model, [(image_logp, codes), (text_logp, texts)]


def one_backward(model: nn.Module, sources: list[theory.Source]) -> None:
    """Run one batched forward and backward pass, the cost of a training step."""
    model.zero_grad()
    torch.stack([fn(model, batch).sum() for fn, batch in sources]).sum().backward()  # type: ignore[no-untyped-call]


def looped(model: nn.Module, sources: list[theory.Source]) -> Tensor:
    """Compute the Gram with one backward pass per sample."""
    params = list(model.parameters())
    rows = []
    for fn, batch in sources:
        for one in batch.split(1):
            grads = torch.autograd.grad(fn(model, one).sum(), params, materialize_grads=True, allow_unused=True)
            rows.append(torch.cat([grad.flatten() for grad in grads]))
    matrix = torch.stack(rows)
    return matrix @ matrix.T


def by_opacus(model: nn.Module, sources: list[theory.Source]) -> Tensor:
    """Compute the Gram with opacus, from per-sample gradients concatenated to one row per sample."""
    matrix = torch.cat(list(_opacus_gradients(model, sources)), 1)
    return matrix @ matrix.T


def by_opacus_per_parameter(model: nn.Module, sources: list[theory.Source]) -> Tensor:
    """Compute the Gram with opacus, multiplying the gradients of each parameter separately."""
    kernel = torch.zeros(2 * SAMPLES, 2 * SAMPLES)
    for rows in _opacus_gradients(model, sources):
        kernel += rows @ rows.T
    return kernel


def _opacus_gradients(model: nn.Module, sources: list[theory.Source]) -> Iterator[Tensor]:
    """Yield the per-sample gradients of each parameter, shape (n, P), and free them afterwards."""
    from opacus import GradSampleModule

    wrapped = GradSampleModule(model.train(), loss_reduction="sum")  # opacus records nothing in eval mode
    params = list(model.parameters())
    held = []
    for fn, batch in sources:
        fn(wrapped, batch).sum().backward()  # type: ignore[no-untyped-call]
        held.append([getattr(p, "grad_sample", None) for p in params])
        wrapped.zero_grad(set_to_none=True)
    wrapped.remove_hooks()
    model.eval()
    for p in reversed(params):
        grads = [kept.pop() for kept in held]
        yield torch.cat(
            [
                p.new_zeros(len(b), p.numel()) if g is None else g.flatten(1)
                for g, (_, b) in zip(grads, sources, strict=True)
            ]
        ).detach()


def by_trak(model: nn.Module, sources: list[theory.Source]) -> Tensor:
    """Compute the Gram with TRAK's functional gradient computer and its no-op projector."""
    from trak.gradient_computers import FunctionalGradientComputer
    from trak.modelout_functions import AbstractModelOutput
    from trak.projectors import NoOpProjector

    class Likelihood(AbstractModelOutput):  # type: ignore[misc]
        def __init__(self, logp_fn: theory.LogpFn) -> None:
            super().__init__()
            self.logp_fn = logp_fn

        def get_output(
            self, model: nn.Module, weights: dict[str, Tensor], buffers: dict[str, Tensor], ids: Tensor
        ) -> Tensor:
            def called(*args: object) -> Tensor:
                logps: Tensor = torch.func.functional_call(model, (weights, buffers), args)
                return logps

            return self.logp_fn(called, ids.unsqueeze(0)).squeeze(0)

        def get_out_to_loss_grad(
            self, model: nn.Module, weights: dict[str, Tensor], buffers: dict[str, Tensor], batch: object
        ) -> Tensor:
            raise NotImplementedError("the kernel needs no loss")

    # the fastest batch size for TRAK here is 8
    projector = NoOpProjector(device="cpu")
    size = sum(p.numel() for p in model.parameters())
    rows = []
    for fn, batch in sources:
        computer = FunctionalGradientComputer(model, Likelihood(fn), size, torch.float32, torch.device("cpu"))
        rows += [projector.project(computer.compute_per_sample_grad((part,)), 0) for part in batch.split(8)]
    matrix = torch.cat(rows).detach()
    return matrix @ matrix.T


Way = Callable[[nn.Module, list[theory.Source]], Tensor | None]

WAYS: dict[str, Way] = {
    "one forward + backward": one_backward,
    "theory auto": lambda model, sources: theory.gram(model, sources, check=False).K,
    "theory auto, checked": lambda model, sources: theory.gram(model, sources).K,
    "theory hooks": lambda model, sources: theory.gram(model, sources, method="hooks", check=False).K,
    "theory func": lambda model, sources: theory.gram(model, sources, method="func", check=False).K,
    "theory ghost": lambda model, sources: theory.gram(model, sources, method="ghost", check=False).K,
    "loop of backwards": looped,
    "opacus": by_opacus,
    "opacus, by parameter": by_opacus_per_parameter,
    "TRAK, no projection": by_trak,
}


@dataclass(frozen=True)
class Row:
    """Result of one method.

    Attributes:
        method: Name of the method.
        seconds: Median time.
        ratio: Median over rounds of the time divided by that round's forward and backward.
        peak_mib: Peak memory above the loaded model, in MiB, in its own process.
        error: Relative distance of the Gram from that of the loop of backwards; None if the method computes no Gram.
    """

    method: str
    seconds: float
    ratio: float
    peak_mib: float
    error: float | None


def installed(name: str) -> bool:
    """Return whether a method can run; if not, print what to install."""
    if name not in PEERS:
        return True
    try:
        import_module(PEERS[name])
    except ImportError:
        print(f"{name}: left out; pip install {PACKAGES[PEERS[name]]} to compare", file=sys.stderr)
        return False
    return True


def peak_of(name: str) -> float:
    """Return the peak memory of one method in this process, above that of the loaded model and imports."""
    model, sources = setting()
    small = [(fn, batch[:2]) for fn, batch in sources]
    if name not in PEERS:
        WAYS[name](model, small)  # exclude the self-check of the first use from the peak
    elif installed(name):
        one_backward(model, small)
    return added_mib(lambda: WAYS[name](model, sources))


def measure(rounds: int, threads: int) -> list[Row]:
    """Time the methods in turn, round after round, and measure the memory of each in its own process."""
    names = [name for name in WAYS if installed(name)]
    model, sources = setting()
    exact = looped(model, sources)
    errors: dict[str, float | None] = {}
    for name in names:
        made = WAYS[name](model, sources)
        errors[name] = None if made is None else float((made - exact).norm() / exact.norm())
    times: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(rounds):
        for name in names:
            start = time.perf_counter()
            WAYS[name](model, sources)
            times[name].append(time.perf_counter() - start)
    floor = times["one forward + backward"]
    ratios = {n: statistics.median(t / f for t, f in zip(ts, floor, strict=True)) for n, ts in times.items()}
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.entk", "--threads", str(threads), "--peak"]
    peaks = {n: float(subprocess.run([*command, n], capture_output=True, text=True, check=True).stdout) for n in names}
    return [Row(n, statistics.median(times[n]), ratios[n], peaks[n], errors[n]) for n in names]


def shown(rows: list[Row]) -> str:
    """Format the rows as a Markdown table, with each cost relative to ours."""
    ours = next(row for row in rows if row.method == "theory auto")
    cells = [
        [
            row.method,
            f"{row.seconds:.3f}",
            f"{row.ratio:.2f}",
            f"{row.peak_mib:.0f}",
            f"{row.ratio / ours.ratio:.2f}",
            f"{row.peak_mib / ours.peak_mib:.2f}",
            "" if row.error is None else f"{row.error:.0e}",
        ]
        for row in rows
    ]
    header = ("method", "s", "x forward + backward", "peak MiB", "x our time", "x our memory", "relative error")
    return table(header, cells)


def verdicts(rows: list[Row]) -> str:
    """Format each target with its measured value; peers that were left out have no line."""
    by_name = {row.method: row for row in rows}
    ours = by_name["theory auto"]
    lines = [f"at most 1.5 x one forward + backward: {ours.ratio:.2f}"]
    for name in PEERS:
        if name in by_name:
            faster, share = by_name[name].ratio / ours.ratio, ours.peak_mib / by_name[name].peak_mib
            lines.append(
                f"at least 1.5 x faster than {name}: {faster:.2f}; at most 0.6 of its peak memory: {share:.2f}"
            )
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Time and memory of one Gram, compared with peers.")
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    parser.add_argument("--rounds", type=int, default=7, help="number of timed rounds")
    parser.add_argument("--threads", type=int, default=1, help="number of torch threads")
    parser.add_argument("--peak", choices=list(WAYS), help="only print the peak memory of one method, in MiB")
    args = parser.parse_args(argv)
    warnings.simplefilter("ignore")  # warnings of the peers
    torch.set_num_threads(args.threads)
    if args.peak is not None:
        print(peak_of(args.peak))
        return
    rows = measure(args.rounds, args.threads)
    size = sum(p.numel() for p in setting(1)[0].parameters())
    print(f"{size} parameters, {SAMPLES} + {SAMPLES} samples of {LENGTH} tokens, float32, {args.threads} thread(s)\n")
    print(shown(rows), verdicts(rows), sep="\n\n")
    if args.json is not None:
        args.json.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")


if __name__ == "__main__":
    main()
