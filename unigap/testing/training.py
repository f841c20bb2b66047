"""Promises of training: what moves, what stays, and what is saved."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch

from unigap.testing.subject import Subject, largest, must, provides

LR = 1e-5
"""Learning rate of the one step that is taken and undone."""


def only_the_trunk_trains(subject: Subject) -> None:
    """After train_only_trunk, only parameters of the trunk, or of an adapter in it, require gradients."""
    model = subject.model
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    trunk = {id(parameter) for parameter in model.trunk.parameters()}
    outside = sorted(
        name for name, parameter in model.named_parameters() if name in trained and id(parameter) not in trunk
    )
    must(bool(trained), "no parameter requires a gradient")
    must(not outside, f"{outside[0] if outside else ''} and {max(len(outside) - 1, 0)} more train outside the trunk")


def a_step_moves_what_trains(subject: Subject) -> None:
    """One optimizer step raises the likelihood and changes trainable parameters only; with_state takes it back."""
    model = subject.model
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    first = subject.logps().mean().item()
    with _one_step(subject):
        after = model.state_dict()
        changed = {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}
        strange = sorted(changed - set(model.trainable_state()))
        must(not strange, f"{strange[0] if strange else ''} changed and does not train")
        must(bool(changed), "no parameter changed")
        must(torch.equal(model.decode(subject.drawings_R), subject.pixels_RCHW), "decode changed with training")
        second = subject.logps().mean().item()
        must(second > first, f"the likelihood fell from {first:.4g} to {second:.4g} a token")
    now = model.state_dict()
    must(
        all(torch.equal(tensor, before[name]) for name, tensor in now.items()),
        "with_state does not restore the weights",
    )


def digests_name_weights_and_pixels(subject: Subject) -> None:
    """The digest of the weights changes with training; that of the drawings does not."""
    model = subject.model
    weights, drawing = model.weights_digest(), model.drawing_digest()
    must(model.weights_digest() == weights, "weights_digest changes from call to call")
    with _one_step(subject):
        must(model.weights_digest() != weights, "weights_digest does not change with the weights")
        must(model.drawing_digest() == drawing, "drawing_digest changes with training")


def likelihoods_are_deterministic_in_training(subject: Subject) -> None:
    """With the trunk in train mode, two passes give the same likelihood."""
    model = subject.model
    modes = [module.training for module in model.modules()]
    model.trunk.train()
    try:
        off = largest(subject.logps(), subject.logps())
    finally:
        for module, mode in zip(model.modules(), modes, strict=True):
            module.training = mode
    must(off <= subject.tolerance, f"two passes in train mode differ by {off:.3g} nats a token; turn dropout off")


def a_saved_model_is_the_same(subject: Subject) -> None:
    """A folder that save writes loads as the same model."""
    assert subject.reload is not None
    with tempfile.TemporaryDirectory() as folder:
        subject.model.save(Path(folder) / "saved")
        loaded = subject.reload(Path(folder) / "saved").to(subject.device).eval()
        off = largest(
            loaded.image_logps(loaded.encode_prompt(subject.texts), subject.drawings_R, subject.noise_R),
            subject.logps(),
        )
        must(off <= subject.tolerance, f"the loaded model differs by {off:.3g} nats a token")
        must(loaded.drawing_digest() == subject.model.drawing_digest(), "the loaded model has another drawing_digest")


def can_be_reloaded(subject: Subject) -> bool:
    """Whether the check knows how to load a saved folder."""
    return subject.reload is not None and provides(subject.model, "save")


@contextlib.contextmanager
def _one_step(subject: Subject) -> Iterator[None]:
    """Run the body after one optimizer step on the sampled images, and take the step back."""
    model = subject.model
    start = model.trainable_state()
    with model.with_state(start):
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=LR, weight_decay=0.0)
        gradients = torch.autograd.grad(-subject.logps().mean(), trained, allow_unused=True)
        for parameter, gradient in zip(trained, gradients, strict=True):
            parameter.grad = gradient
        optimizer.step()
        model.zero_grad()
        yield
