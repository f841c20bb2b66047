"""What makes gradients random, rounded or impossible is refused with its own reason, at every door."""

from __future__ import annotations

from collections import UserDict
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import theory

DOORS = {
    "gram": lambda model, source, method: theory.gram(model, [source], method=method),
    "cross_gram": lambda model, source, method: theory.cross_gram(model, source, source, method=method),
    "features": lambda model, source, method: theory.features(model, [source], method=method),
    "self_check": lambda model, source, method: theory.self_check(model, [source], method=method),
    "unchecked": lambda model, source, method: theory.gram(model, [source], method=method, check=False),
}
METHODS = ("auto", "func", "loop")
every_door = pytest.mark.parametrize(
    ("door", "method"), [(door, method) for door in DOORS for method in METHODS if door == "gram" or method == "auto"]
)


class Attention(nn.Module):
    """A layer whose dropout is a function, as in the attention of transformers: no layer shows it."""

    def __init__(self, dropout: float = 0.3) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.mix, self.attention_dropout = nn.Linear(4, 4), dropout

    def forward(self, x: Tensor) -> Tensor:
        shares = F.dropout(self.mix(x).softmax(-1), self.attention_dropout, self.training)
        return (shares * x).sum(-1)


def logp(model: nn.Module, x: Tensor) -> Tensor:
    return model(x)


def batch(n: int = 5) -> Tensor:
    return torch.randn(n, 4, generator=torch.Generator().manual_seed(1))


@every_door
def test_dropout_that_is_a_function_is_refused(door: str, method: str) -> None:
    model = Attention().eval()
    DOORS[door](model, (logp, batch()), method)  # passes, so that no first use is left to find it later
    with pytest.raises(ValueError, match=r"draws from torch's global random generator.*call model.eval\(\)"):
        DOORS[door](model.train(), (logp, batch()), method)


def test_attention_dropout_of_transformers_is_refused() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        vocab_size=12, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2,
        attention_dropout=0.2, attn_implementation="eager",
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(config)

    def text_logp(model: nn.Module, ids: Tensor) -> Tensor:
        logits = model(ids, use_cache=False).logits[:, :-1]
        return logits.log_softmax(-1).gather(-1, ids[:, 1:, None]).sum((1, 2))

    ids = torch.randint(12, (3, 5))
    theory.gram(model.eval(), [(text_logp, ids)])
    for check in (True, False):
        with pytest.raises(ValueError, match=r"global random generator.*training mode, .*call model.eval\(\)"):
            theory.gram(model.train(), [(text_logp, ids)], check=check)


def test_randomness_of_the_likelihood_itself_is_refused_and_a_seeded_one_is_not() -> None:
    model = Attention().eval()
    noisy = (lambda model, x: model(x + torch.randn_like(x)), batch())
    delta = {"mix.weight": torch.ones(4, 4)}
    for ask in (
        lambda: theory.gram(model, [noisy]),
        lambda: theory.directional(model, [noisy], delta),
        lambda: theory.directional(model, [noisy], delta, "reverse", check=False),
        lambda: theory.token_gram(
            model, (lambda m, x: m(x + torch.randn_like(x)), batch(1)[:, None]), (logp, batch(1))
        ),
    ):
        with pytest.raises(ValueError, match=r"global random generator.*torch.Generator with a fixed seed"):
            ask()
    seeded = (lambda model, x: model(x + torch.rand(4, generator=torch.Generator().manual_seed(0))), batch())
    theory.gram(model, [seeded])


@every_door
def test_autocast_is_refused_around_the_call_and_inside_it(door: str, method: str) -> None:
    model = Attention().eval()
    with (
        torch.autocast("cpu", torch.bfloat16),
        pytest.raises(ValueError, match=r"this code runs under torch.autocast\('cpu', torch.bfloat16\)"),
    ):
        DOORS[door](model, (logp, batch()), method)

    def cast(model: nn.Module, x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return model(x).float()

    with pytest.raises(ValueError, match=r"layer mix runs under torch.autocast\('cpu', torch.bfloat16\)"):
        DOORS[door](model, (cast, batch()), method)

    def full(model: nn.Module, x: Tensor) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            return model(x)

    DOORS[door](model, (full, batch()), method)


@every_door
def test_inference_mode_is_refused_and_its_tensors_are_taken(door: str, method: str) -> None:
    model = Attention().eval()
    with torch.inference_mode():
        made = batch() + 0
        with pytest.raises(ValueError, match=r"torch.inference_mode\(\) is on"):
            DOORS[door](model, (logp, batch()), method)
        lost = Attention().eval()
    DOORS[door](model, (logp, made), method)
    with torch.no_grad():
        DOORS[door](model, (logp, batch()), method)
    with pytest.raises(ValueError, match=r"parameter mix.weight was made under torch.inference_mode"):
        DOORS[door](lost, (logp, batch()), method)


UNCOUNTED = {
    "numbers": ([3, 4, 5, 6, 7], r"the batch\['more'\] is a list of int"),
    "words": (("a", "b", "c", "d", "e"), r"the batch\['more'\] is a tuple of str"),
    "array": (np.ones(5), r"the batch\['more'\] is a ndarray"),
    "encoding": (UserDict(ids=batch()), r"the batch\['more'\] is a UserDict"),
    "deeper": ({"even": [1.0, 2.0]}, r"the batch\['more'\]\['even'\] is a list of float"),
}


@pytest.mark.parametrize("case", UNCOUNTED)
@pytest.mark.parametrize("method", METHODS)
def test_a_batch_that_samples_cannot_be_picked_out_of_is_named(case: str, method: str) -> None:
    """Handed on whole, a list would give the second block of a kernel the first block's entries."""
    more, message = UNCOUNTED[case]
    source = (lambda model, b: model(b["x"]), {"x": batch(), "more": more})
    with pytest.raises(ValueError, match=message + ".*no tensor, so samples cannot be picked out of it"):
        theory.gram(Attention().eval(), [source], method=method)
    with pytest.raises(ValueError, match=message):
        theory.cross_gram(Attention().eval(), source, source, method=method, block=2)


def test_constants_and_nests_of_tensors_are_taken() -> None:
    def scaled(model: nn.Module, b: Any) -> Tensor:
        assert b["name"] == "x" and b["none"] is None
        return model(b["pair"][0]) * b["scale"] + b["pair"][1]

    x = {"pair": [batch(), torch.ones(5)], "scale": 2.0, "name": "x", "none": None, "nones": (None, None)}
    for method in METHODS:
        found: Callable[..., Any] = theory.gram(Attention().eval(), [(scaled, x)], method=method)
        torch.testing.assert_close(found.K, 4 * theory.gram(Attention().eval(), [(logp, batch())]).K)
