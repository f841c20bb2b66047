"""The adapter for lmms-eval, by its published interface, and by the package itself where it is installed."""

from __future__ import annotations

import abc
import importlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from PIL import Image

from unigap.bench.understanding import Understanding, options_in
from unigap.files.images import to_pixels

ADAPTER = "unigap.bench.lmms_eval_model"
RED = Image.new("RGB", (40, 20), "red")


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The adapter's module, with the classes of lmms-eval 0.7 that it uses; the package's own if it is installed."""
    if importlib.util.find_spec("lmms_eval") is None:

        class Lmms(abc.ABC):
            def __init__(self) -> None:
                self.task_dict: dict[str, Any] = {}

            @abc.abstractmethod
            def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]: ...

            @abc.abstractmethod
            def generate_until(self, requests: list[Any]) -> list[str]: ...

            @abc.abstractmethod
            def generate_until_multi_round(self, requests: list[Any]) -> list[str]: ...

        @dataclass(frozen=True)
        class ModelManifest:
            model_id: str
            simple_class_path: str | None = None
            chat_class_path: str | None = None
            aliases: tuple[str, ...] = ()

        contents: dict[str, dict[str, Any]] = {
            "lmms_eval": {},
            "lmms_eval.api": {},
            "lmms_eval.api.model": {"lmms": Lmms},
            "lmms_eval.models": {},
            "lmms_eval.models.registry_v2": {"ModelManifest": ModelManifest},
        }
        for name, members in contents.items():
            module = ModuleType(name)
            vars(module).update(members)
            monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.delitem(sys.modules, ADAPTER, raising=False)
    yield importlib.import_module(ADAPTER)
    sys.modules.pop(ADAPTER, None)


@dataclass
class Instance:
    """A request of lmms-eval."""

    args: tuple[Any, ...]


def request(kind: str, text: str) -> Instance:
    """A request about the only document of a task."""
    return Instance(
        (text, {} if kind == "generate_until" else "yes", lambda document: [document["image"]], 0, "t", "s")
    )


def test_questions_of_lmms_eval_are_answered_by_likelihood(published: Any, janus_folder: Path, janus: Any) -> None:
    manifest = published.manifest()
    module, _, name = manifest.simple_class_path.rpartition(".")
    assert manifest.model_id == "unigap" and module == ADAPTER
    model = getattr(published, name)(pretrained=str(janus_folder), side=64, batch_size=1, max_batch_size=None)
    model.task_dict = {"t": {"s": [{"image": RED}]}}
    question = "Does this image describe a red circle?"
    logit = janus.judge_logit(to_pixels(RED, 64)[None], [[question]]).item()
    assert model.generate_until([request("generate_until", question)] * 2) == ["Yes" if logit >= 0 else "No"] * 2
    ((logp, greedy),) = model.loglikelihood([request("loglikelihood", question)])
    given, _ = janus.text_logps(to_pixels(RED, 64)[None], [[question]], [["yes"]])
    assert logp == pytest.approx(given.sum().item(), abs=1e-4) and greedy is False
    with pytest.raises(ValueError, match="single round"):
        model.generate_until_multi_round([])


class Told:
    """A model whose log-probability of an answer is given."""

    def __init__(self, logps: dict[str, float]) -> None:
        self.logps = logps

    def parameters(self) -> Iterator[torch.Tensor]:
        yield torch.zeros(1)

    def modules(self) -> Iterator[Any]:
        yield from ()

    def eval(self) -> None: ...

    def text_logps(self, pixels: torch.Tensor, questions: Any, answers: Any) -> tuple[torch.Tensor, torch.Tensor]:
        logp = torch.tensor([[[self.logps[answers[0][0]]]]])
        return logp, logp < 0


def test_the_most_likely_option_is_chosen() -> None:
    understanding = Understanding(Told({"A": -2.0, "B": -1.0, "C": -3.0}), 32)  # type: ignore[arg-type]
    assert understanding.reply([RED], "What is it?\nA. a cat\nB. a dog\nC. a cow\nAnswer with the letter.") == "B"
    with pytest.raises(ValueError, match="asks for text"):
        understanding.reply([RED], "Describe the image.")
    with pytest.raises(ValueError, match="about 2 images"):
        understanding.reply([RED, RED], "Is it red?")


@pytest.mark.parametrize(
    ("text", "letters"),
    [
        ("Which?\n(A) one\n(B) two", ["A", "B"]),
        ("A. only one", []),
        ("A. one\nC. three", []),
        ("Is there a dog?\nAnswer the question using a single word or phrase.", []),
    ],
)
def test_options_are_letters_without_a_gap(text: str, letters: list[str]) -> None:
    assert options_in(text) == letters
