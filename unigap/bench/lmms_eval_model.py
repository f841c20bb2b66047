"""lmms-eval's interface of a model, for any checkpoint of unigap; lmms-eval finds it by its entry point."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lmms_eval.api.model import lmms
from lmms_eval.models.registry_v2 import ModelManifest
from PIL import Image

from unigap.bench.understanding import Understanding
from unigap.models.families import load_model
from unigap.models.files.load_options import check_device


class UnigapModel(lmms):  # type: ignore[misc] # lmms-eval ships no types
    """Any unified model, for tasks of yes-no questions or lettered options.

    Args:
        pretrained: A shipped model, a folder, or a hub id; export a run first (``unigap export model``).
        device: Device of the model; empty means the CPU.
        dtype: Precision of the weights, ``float32`` or ``bfloat16``; empty means the default of the family.
        side: Side of the square to which images are padded and scaled, in pixels.
        batch_size: Not used: lmms-eval passes it to every model, and questions are answered one by one.
        max_batch_size: Likewise.
    """

    is_simple = True

    def __init__(
        self,
        pretrained: str = "shapes",
        device: str = "",
        dtype: str = "",
        side: int = 384,
        batch_size: int | str = 1,
        max_batch_size: int | None = None,
    ) -> None:
        super().__init__()
        if device:
            check_device(device)
        model = load_model(pretrained, **({"dtype": dtype} if dtype else {}))
        self.understanding = Understanding(model.to(device or "cpu").eval(), int(side))

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """Return the log-probability of each continuation.

        Whether it is the greedy one is not known, since the protocol scores given answers only: always False.
        """
        found = []
        for request in requests:
            context, target, doc_to_visual, doc_id, task, split = request.args
            document = self.task_dict[task][split][doc_id]
            answer = target if isinstance(target, str) else target(document)
            found.append((self.understanding.logp(_images(doc_to_visual(document)), context, answer), False))
        return found

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """Return the most likely answer to each question; options of text generation do not matter."""
        replies = []
        for request in requests:
            context, _, doc_to_visual, doc_id, task, split = request.args
            images = _images(doc_to_visual(self.task_dict[task][split][doc_id]))
            replies.append(self.understanding.reply(images, context))
        return replies

    def generate_until_multi_round(self, requests: Sequence[Any]) -> list[str]:
        """Refuse: the models here answer one question at a time."""
        raise ValueError("unified models here answer one question at a time; take tasks of a single round")


def manifest() -> ModelManifest:
    """Return what lmms-eval registers, so that ``--model unigap`` finds the class."""
    return ModelManifest(model_id="unigap", simple_class_path=f"{__name__}.{UnigapModel.__name__}")


def _images(visuals: Any) -> list[Image.Image]:
    images = visuals if isinstance(visuals, list) else [visuals]
    if not all(isinstance(image, Image.Image) for image in images):
        raise ValueError("a task shows something else than images, e.g. a video; take tasks of images")
    return images
