"""Promises of the judge and of answers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import nn

from unigap.testing.subject import Subject, largest, must, provides

# Shape legend: R images, Q questions an image, T answer tokens.


def verdicts_have_their_shape(subject: Subject) -> None:
    """Verdicts are log-odds, float32 (R, Q), finite and differentiable, with P(yes) + P(no) in [0, 1]."""
    with _everything_trains(subject.model):
        found = subject.model.judge_answers(subject.pixels_RCHW, _questions(subject))
    expected = (len(subject.pixels_RCHW), len(subject.questions))
    for name, tensor in (("logit", found.logit), ("mass", found.mass)):
        must(
            tensor.shape == expected,
            f"{name} has shape {tuple(tensor.shape)} for {expected[0]} images, {expected[1]} questions",
        )
        must(tensor.dtype == torch.float32, f"{name} is {tensor.dtype}")
        must(torch.isfinite(tensor).all(), f"{name} is not finite")
    must(found.logit.requires_grad, "the log-odds carry no gradient")
    low, high = found.mass.min().item(), found.mass.max().item()
    must(low >= -1e-6 and high <= 1 + 1e-5, f"P(yes) + P(no) lies in [{low:.3g}, {high:.3g}]")


def questions_do_not_see_each_other(subject: Subject) -> None:
    """A question has the same answer alone as beside other questions, and in another order."""
    model, pixels = subject.model, subject.pixels_RCHW[:2]
    together_BQ = model.judge_logit(pixels, [list(subject.questions)] * len(pixels))
    for column, question in enumerate(subject.questions):
        alone_B = model.judge_logit(pixels[:1], [[question]])[:, 0]
        off = largest(alone_B, together_BQ[:1, column])
        must(off <= subject.tolerance, f"question {question!r} alone differs by {off:.3g} nats")
    turned_BQ = model.judge_logit(pixels, [list(subject.questions)[::-1]] * len(pixels)).flip(1)
    off = largest(turned_BQ, together_BQ)
    must(off <= subject.tolerance, f"the order of the questions changes an answer by {off:.3g} nats")


def the_judge_sees_the_image(subject: Subject) -> None:
    """The answer depends on the image."""
    one, other = subject.pixels_RCHW[:1], -subject.pixels_RCHW[:1]
    logits = [subject.model.judge_logit(pixels, [list(subject.questions)]) for pixels in (one, other)]
    must(largest(*logits) > 0, "an image and its negative get the same answers: the image is ignored")


def answers_have_their_shape(subject: Subject) -> None:
    """Log-probabilities of answers are float32 (R, Q, T), finite, <= 0, and 0 at padding."""
    pixels = subject.pixels_RCHW[:2]
    answers = [["yes", "no"]] * len(pixels)
    logp_BQT, mask_BQT = subject.model.text_logps(pixels, [list(subject.questions[:2])] * len(pixels), answers)
    must(
        logp_BQT.ndim == 3 and logp_BQT.shape[:2] == (len(pixels), 2),
        f"text_logps returns shape {tuple(logp_BQT.shape)}",
    )
    must(
        mask_BQT.shape == logp_BQT.shape and mask_BQT.dtype == torch.bool,
        f"the mask is {mask_BQT.dtype} {tuple(mask_BQT.shape)}",
    )
    must(logp_BQT.dtype == torch.float32 and torch.isfinite(logp_BQT).all(), "text_logps is not finite float32")
    must((logp_BQT <= 0).all(), f"log-probabilities reach {logp_BQT.max().item():.3g}, above 0")
    must((logp_BQT[~mask_BQT] == 0).all(), "log-probabilities at padding are not 0")
    must(mask_BQT.any(-1).all(), "an answer has no token")


def has_answers(subject: Subject) -> bool:
    """Whether the model scores answers in text."""
    return provides(subject.model, "text_logps")


def _questions(subject: Subject) -> list[list[str]]:
    return [list(subject.questions)] * len(subject.pixels_RCHW)


@contextlib.contextmanager
def _everything_trains(model: nn.Module) -> Iterator[None]:
    """Let all weights take gradients: what a model trains need not reach its answers."""
    frozen = [p for p in model.parameters() if p.is_floating_point() and not p.requires_grad]
    for parameter in frozen:
        parameter.requires_grad_(True)
    try:
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)
