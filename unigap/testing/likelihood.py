"""Promises of the likelihood of images."""

from __future__ import annotations

import torch

from unigap.models.base import SamplingRecipe
from unigap.testing.subject import Subject, largest, must

# Shape legend: B prompts, N candidates a prompt, R = B * N images, M image tokens, S samples of one prompt.

SAMPLES = 64
"""Images whose first token is counted."""
RECIPE = SamplingRecipe(temperature=0.7, cfg=2.0)
"""A recipe whose distribution differs from the plain one."""
SIGMAS = 5
"""Largest distance of a share from its probability, in standard errors."""


def logps_have_their_shape(subject: Subject) -> None:
    """Log-probabilities of images are float32 (R, M), finite and differentiable."""
    logp_RM, count = subject.logps(), len(subject.drawings_R)
    must(
        logp_RM.ndim == 2 and len(logp_RM) == count,
        f"image_logps returns shape {tuple(logp_RM.shape)} for {count} images",
    )
    must(logp_RM.dtype == torch.float32, f"image_logps returns {logp_RM.dtype}")
    must(torch.isfinite(logp_RM).all(), "image_logps is not finite")
    must(logp_RM.requires_grad, "image_logps carries no gradient")
    if subject.model.exact_likelihood:
        must((logp_RM <= 0).all(), f"log-probabilities reach {logp_RM.max().item():.3g}, above 0")


def sampling_equals_scoring(subject: Subject) -> None:
    """The log-probabilities at sampling time equal the teacher-forced ones (exact likelihoods)."""
    sampled_BNM = subject.samples.logp_BNM
    must(sampled_BNM is not None, "sample_images returns no log-probabilities")
    assert sampled_BNM is not None
    sampled_RM, forced_RM = sampled_BNM.flatten(0, 1), subject.logps()
    must(
        sampled_RM.shape == forced_RM.shape,
        f"sampling gives shape {tuple(sampled_RM.shape)}, scoring {tuple(forced_RM.shape)}",
    )
    off = largest(sampled_RM, forced_RM)
    must(
        off <= subject.tolerance,
        f"they differ by up to {off:.3g} nats a token; at most {subject.tolerance:g} is rounding",
    )


def recipes_are_scored(subject: Subject) -> None:
    """image_logps takes a recipe, and equals the log-probabilities of sampling with it (exact likelihoods)."""
    model, prompt = subject.model, subject.prompt
    samples = model.sample_images(prompt, subject.seeds_BN, RECIPE)
    must(samples.behaviour_BNM is not None, "sample_images returns no behaviour_BNM")
    assert samples.behaviour_BNM is not None
    scored_RM = model.image_logps(prompt, samples.drawings_BN.flatten(0, 1), recipe=RECIPE)
    off = largest(samples.behaviour_BNM.flatten(0, 1), scored_RM)
    must(
        off <= subject.tolerance,
        f"at cfg {RECIPE.cfg:g} and temperature {RECIPE.temperature:g} they differ by up to {off:.3g} nats a token; at "
        f"most {subject.tolerance:g} is rounding",
    )


def recipes_are_refused(subject: Subject) -> None:
    """image_logps refuses a recipe with a ValueError, because it has no likelihood under one (estimates)."""
    try:
        subject.model.image_logps(subject.prompt, subject.drawings_R, subject.noise_R, RECIPE)
    except ValueError:
        return
    must(False, "a recipe was accepted: what is returned is no likelihood under it")


def shares_equal_probabilities(subject: Subject) -> None:
    """Sampled first tokens occur as often as their likelihood says (exact likelihoods)."""
    model, prompt = subject.model, subject.model.encode_prompt(subject.texts[:1])
    seeds_1S = torch.arange(SAMPLES)[None] * 104729 + 2**41
    drawings_S = model.sample_images(prompt, seeds_1S, SamplingRecipe()).drawings_BN[0]
    p_S = model.image_logps(prompt, drawings_S)[:, 0].detach().double().exp()
    first_S = drawings_S.flatten(1)[:, 0]
    for code in sorted(set(first_S.tolist())):
        share, p = (first_S == code).double().mean().item(), p_S[first_S == code].mean().item()
        error = (max(p * (1 - p), 1e-12) / SAMPLES) ** 0.5
        within = abs(share - p) <= SIGMAS * error + 1 / SAMPLES
        must(within, f"code {code} is the first of {share:.0%} of {SAMPLES} samples, and has probability {p:.3g}")


def estimates_are_functions_of_their_noise(subject: Subject) -> None:
    """Equal noise seeds give equal estimates, in any order; other seeds give others (estimates)."""
    model, noise_R = subject.model, subject.noise_R
    assert noise_R is not None
    found_RM = subject.logps()
    off = largest(subject.logps(), found_RM)
    must(off <= subject.tolerance, f"the same seeds gave two estimates, {off:.3g} apart")
    prompt = subject.prompt.repeat(subject.candidates)
    order = torch.arange(len(noise_R)).flip(0)
    flipped = model.encode_prompt([subject.texts[i // subject.candidates] for i in order.tolist()])
    turned_RM = model.image_logps(flipped, subject.drawings_R[order], noise_R[order])[order]
    off = largest(turned_RM, model.image_logps(prompt, subject.drawings_R, noise_R))
    must(off <= subject.tolerance, f"the order of the batch changes an estimate by {off:.3g}")
    other_RM = model.image_logps(subject.prompt, subject.drawings_R, noise_R + 1)
    must(largest(other_RM, found_RM) > 0, "other seeds gave the same estimates: the noise is ignored")
    off = largest(*(model.image_logps(subject.prompt, subject.drawings_R) for _ in range(2)))
    must(
        off <= subject.tolerance,
        f"without seeds, two estimates differ by {off:.3g}; they are to follow from the prompt",
    )


def padding_changes_nothing(subject: Subject) -> None:
    """An image is as likely alone as in a batch with longer prompts."""
    together_RM, model = subject.logps(), subject.model
    for row, text in enumerate(subject.texts):
        images = slice(row * subject.candidates, (row + 1) * subject.candidates)
        noise_N = None if subject.noise_R is None else subject.noise_R[images]
        alone_NM = model.image_logps(model.encode_prompt([text]), subject.drawings_R[images], noise_N)
        off = largest(alone_NM, together_RM[images])
        must(off <= subject.tolerance, f"prompt {text!r} alone differs by {off:.3g} nats a token")


def shared_prompts_change_nothing(subject: Subject) -> None:
    """Several images of one prompt are as likely as with the prompt repeated."""
    apart_RM = subject.model.image_logps(subject.prompt.repeat(subject.candidates), subject.drawings_R, subject.noise_R)
    off = largest(subject.logps(), apart_RM)
    must(off <= subject.tolerance, f"they differ by {off:.3g} nats a token")


def prompts_matter(subject: Subject) -> None:
    """The likelihood of an image depends on its prompt."""
    model, drawings_N = subject.model, subject.drawings_R[: subject.candidates]
    noise_N = None if subject.noise_R is None else subject.noise_R[: subject.candidates]
    own, other = (model.image_logps(model.encode_prompt([text]), drawings_N, noise_N) for text in subject.texts[:2])
    must(largest(own, other) > 0, "two prompts give an image the same likelihood: the prompt is ignored")
