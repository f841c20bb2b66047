"""Small random models whose kernels are known in closed form or can be computed several ways."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Affine(nn.Module):
    """Score w . x + b, whose kernel is X X^T + 1."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layer = nn.Linear(width, 1, dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x).squeeze(-1)


class TwoHeads(nn.Module):
    """Two scalar heads on a shared (or, if disjoint, separate) linear trunk without biases."""

    def __init__(self, width: int, hidden: int, disjoint: bool = False) -> None:
        super().__init__()
        self.trunk = nn.Linear(width, hidden, bias=False, dtype=torch.float64)
        self.other = nn.Linear(width, hidden, bias=False, dtype=torch.float64) if disjoint else self.trunk
        self.generation = nn.Linear(hidden, 1, bias=False, dtype=torch.float64)
        self.understanding = nn.Linear(hidden, 1, bias=False, dtype=torch.float64)


def score_generation(model: TwoHeads, x: Tensor) -> Tensor:
    return model.generation(model.trunk(x)).squeeze(-1)


def score_understanding(model: TwoHeads, x: Tensor) -> Tensor:
    return model.understanding(model.other(x)).squeeze(-1)


class Adapter(nn.Module):
    """A linear layer with a low-rank update, as LoRA writes it."""

    def __init__(self, width: int, rank: int) -> None:
        super().__init__()
        self.base = nn.Linear(width, width)
        self.lora_A = nn.Linear(width, rank, bias=False)
        self.lora_B = nn.Linear(rank, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + 0.5 * self.lora_B(self.lora_A(x))


class PlainRMSNorm(nn.Module):
    """A norm hooks know nothing about."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(width) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6)


class Attention(nn.Module):
    """Causal attention with a padding mask."""

    def __init__(self, width: int, rank: int) -> None:
        super().__init__()
        self.q = Adapter(width, rank) if rank else nn.Linear(width, width)
        self.kv = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor, seen: Tensor) -> Tensor:
        k, v = self.kv(x).chunk(2, -1)
        t = x.shape[1]
        allowed = torch.ones(t, t, dtype=torch.bool).tril() & seen[:, None, :] | torch.eye(t, dtype=torch.bool)
        scores = (self.q(x) @ k.transpose(1, 2) / x.shape[-1] ** 0.5).masked_fill(~allowed, -torch.inf)
        return self.out(scores.softmax(-1) @ v)


class SmallLM(nn.Module):
    """A language model with a random architecture: tied or not, reused block or not, adapter, assorted norms.

    Args:
        seed: Draws sizes and weights.
        tied: Share the table of the embedding with the head.
        reused: Apply one block twice instead of two blocks once.
        rank: Rank of the adapter on the query; 0 for none.
    """

    pad = 0

    def __init__(self, seed: int, tied: bool = False, reused: bool = False, rank: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        width = int(torch.randint(4, 9, ())) * 2
        self.vocabulary = int(torch.randint(9, 15, ()))
        self.tokens = nn.Embedding(self.vocabulary, width, padding_idx=None if tied else self.pad)
        self.positions = nn.Embedding(16, width)
        self.mixers = nn.ModuleList(Attention(width, rank) for _ in range(1 if reused else 2))
        self.norms = nn.ModuleList([nn.LayerNorm(width), PlainRMSNorm(width)])
        self.up, self.down = nn.Linear(width, 3 * width), nn.Linear(3 * width, width)
        self.final = nn.RMSNorm(width)
        self.head = nn.Linear(width, self.vocabulary, bias=not tied)
        self.yes = nn.Linear(width, 2)
        if tied:
            self.head.weight = self.tokens.weight
        self.reused = reused
        self.double().eval()

    def forward(self, ids: Tensor, seen: Tensor) -> Tensor:
        x = self.tokens(ids) + self.positions(torch.arange(ids.shape[1])[None])
        for depth, norm in enumerate(self.norms):
            x = x + self.mixers[0 if self.reused else depth](norm(x), seen)
            hidden = self.up(x)
            F.silu(hidden, inplace=True)
            x = x + self.down(hidden)
        return self.final(x)


def text_logp(model: SmallLM, batch: dict[str, Tensor]) -> Tensor:
    """Log-likelihood of left-padded sequences."""
    ids, seen = batch["ids"], batch["ids"] != SmallLM.pad
    token_logps = model.head(model(ids, seen)[:, :-1]).log_softmax(-1).gather(-1, ids[:, 1:, None]).squeeze(-1)
    return (token_logps * (seen[:, 1:] & seen[:, :-1])).sum(1)


def answer_logp(model: SmallLM, batch: dict[str, Tensor]) -> Tensor:
    """Log-probability of a yes/no answer after a left-padded sequence."""
    hidden = model(batch["ids"], batch["ids"] != SmallLM.pad)[:, -1]
    return model.yes(hidden).log_softmax(-1).gather(-1, batch["answer"][:, None]).squeeze(-1)


def small_batches(model: SmallLM, n: int, m: int, seed: int = 0) -> list:
    """N padded texts and m padded questions, of different lengths, as sources."""
    draw = torch.Generator().manual_seed(seed)

    def padded(count: int, length: int) -> Tensor:
        ids = torch.randint(1, model.vocabulary, (count, length), generator=draw)
        starts = torch.randint(0, length - 2, (count,), generator=draw)
        return ids.masked_fill(torch.arange(length)[None] < starts[:, None], SmallLM.pad)

    answers = torch.randint(2, (m,), generator=draw)
    return [(text_logp, {"ids": padded(n, 7)}), (answer_logp, {"ids": padded(m, 5), "answer": answers})]


def looped_gradients(model: nn.Module, sources: list, names: list[str] | None = None) -> Tensor:
    """The reference: one backward pass a sample, gradients flattened, shape (N, P)."""
    params = {k: p for k, p in model.named_parameters() if names is None or k in names}
    rows = []
    for logp_fn, batch in sources:
        tensors = batch if isinstance(batch, dict) else {"": batch}
        for i in range(len(next(iter(tensors.values())))):
            one = {k: v[i : i + 1] for k, v in tensors.items()}
            logp = logp_fn(model, one if isinstance(batch, dict) else one[""]).sum()
            grads = torch.autograd.grad(logp, list(params.values()), allow_unused=True)
            rows.append(
                torch.cat(
                    [
                        torch.zeros_like(p).flatten() if g is None else g.flatten()
                        for g, p in zip(grads, params.values(), strict=True)
                    ]
                )
            )
    return torch.stack(rows)
