"""Promises of sampling, decoding and prompts."""

from __future__ import annotations

import torch

from unigap.models.base import SamplingRecipe
from unigap.testing.subject import Subject, largest, must, provides

# Shape legend: B prompts, N candidates a prompt, R = B * N images, L prompt tokens, M image tokens.


def prompts_are_padded_left(subject: Subject) -> None:
    """Prompts are padded on the left, and only the masks tell padding from tokens."""
    prompt, batch = subject.prompt, len(subject.texts)
    for name in ("ids_BL", "mask_BL", "uncond_BL", "uncond_mask_BL"):
        found = getattr(prompt, name)
        must(found.dtype == torch.int64 and found.shape[0] == batch, f"{name} is {found.dtype} {tuple(found.shape)}")
    for name in ("mask_BL", "uncond_mask_BL"):
        mask_BL = getattr(prompt, name)
        must(((mask_BL == 0) | (mask_BL == 1)).all(), f"{name} holds other values than 0 and 1")
        must((mask_BL[:, 1:] >= mask_BL[:, :-1]).all(), f"{name} has padding right of a token")


def empty_prompts_are_refused(subject: Subject) -> None:
    """An empty prompt is refused with a ValueError."""
    try:
        subject.model.encode_prompt([""])
    except ValueError:
        return
    must(False, "an empty prompt was accepted")


def samples_have_their_shapes(subject: Subject) -> None:
    """Drawings have shape (B, N, ...); log-probabilities (B, N, M) are finite and <= 0, or None."""
    drawings_BN, logp_BNM = subject.samples.drawings_BN, subject.samples.logp_BNM
    leading, codes = (len(subject.texts), subject.candidates), not drawings_BN.is_floating_point()
    must(
        drawings_BN.shape[:2] == leading and drawings_BN.ndim >= 3, f"drawings_BN has shape {tuple(drawings_BN.shape)}"
    )
    must(not codes or drawings_BN.dtype == torch.int64, f"codes are {drawings_BN.dtype}, not int64")
    must(codes or torch.isfinite(drawings_BN).all(), "latents are not finite")
    must(not drawings_BN.requires_grad, "drawings carry a gradient")
    must(logp_BNM is not None or not subject.model.exact_likelihood, "the likelihood is exact, but logp_BNM is None")
    if logp_BNM is not None:
        must(logp_BNM.ndim == 3 and logp_BNM.shape[:2] == leading, f"logp_BNM has shape {tuple(logp_BNM.shape)}")
        must(torch.isfinite(logp_BNM).all(), "logp_BNM is not finite")
        must((logp_BNM <= 0).all(), f"logp_BNM reaches {logp_BNM.max().item():.3g}, above 0")


def seeds_decide(subject: Subject) -> None:
    """Equal seeds give equal images, other seeds give others; torch's generator has no part in it."""
    model, prompt, seeds_BN = subject.model, subject.prompt, subject.seeds_BN
    with torch.random.fork_rng():
        torch.manual_seed(99)
        again = model.sample_images(prompt, seeds_BN, SamplingRecipe()).drawings_BN
    must(subject.same_drawings(again, subject.samples.drawings_BN), "equal seeds gave two different images")
    other = model.sample_images(prompt, seeds_BN + 1, SamplingRecipe()).drawings_BN
    must(not subject.same_drawings(other, again), "other seeds gave the same images: the seeds are ignored")
    first_N = again[0]
    must(not subject.same_drawings(first_N[0], first_N[1]), "two candidates of one prompt are equal")


def batches_do_not_matter(subject: Subject) -> None:
    """An image sampled alone equals the one sampled in a batch with longer prompts."""
    for row, text in enumerate(subject.texts):
        prompt, seed = subject.model.encode_prompt([text]), subject.seeds_BN[row : row + 1, -1:]
        alone = subject.model.sample_images(prompt, seed, SamplingRecipe()).drawings_BN[0, 0]
        same = subject.same_drawings(alone, subject.samples.drawings_BN[row, -1])
        must(same, f"prompt {text!r} alone gives another image than in the batch")


def sampling_leaves_the_model_alone(subject: Subject) -> None:
    """Sampling keeps the train or eval mode of every module, and the trunk's gradients."""
    model = subject.model
    modes = [module.training for module in model.modules()]
    model.trunk.train()
    during = [module.training for module in model.modules()]
    try:
        again = model.sample_images(subject.prompt, subject.seeds_BN, SamplingRecipe()).drawings_BN
        must([module.training for module in model.modules()] == during, "sampling changed train or eval mode")
        must(subject.same_drawings(again, subject.samples.drawings_BN), "in train mode it samples other images")
    finally:
        for module, mode in zip(model.modules(), modes, strict=True):
            module.training = mode


def guidance_is_sampled(subject: Subject) -> None:
    """Guidance of 2 samples finite images, and usual_cfg is at least 1."""
    usual = subject.model.usual_cfg
    must(usual >= 1, f"usual_cfg is {usual}")
    guided = subject.model.sample_images(subject.prompt, subject.seeds_BN, SamplingRecipe(cfg=2.0)).drawings_BN
    must(guided.shape == subject.samples.drawings_BN.shape, f"guided drawings have shape {tuple(guided.shape)}")
    must(torch.isfinite(guided).all(), "guided drawings are not finite")


def pixels_have_their_range(subject: Subject) -> None:
    """Decoded pixels are float32 (R, 3, H, W) in [-1, 1], without gradient."""
    pixels = subject.pixels_RCHW
    count = len(subject.drawings_R)
    must(pixels.ndim == 4 and pixels.shape[:2] == (count, 3), f"decode returns shape {tuple(pixels.shape)}")
    must(pixels.dtype == torch.float32, f"decode returns {pixels.dtype}")
    must(not pixels.requires_grad, "pixels carry a gradient")
    low, high = pixels.min().item(), pixels.max().item()
    must(low >= -1 and high <= 1, f"pixels lie in [{low:.3g}, {high:.3g}]")
    must(low < 0, f"no pixel of {count} images is below 0 (lowest {low:.3g}): decode seems to return [0, 1]")


def decoding_depends_on_the_drawing_alone(subject: Subject) -> None:
    """An image decodes to the same pixels alone, in a batch, and as the pool stores it."""
    model, drawings_R = subject.model, subject.drawings_R
    alone = model.decode(drawings_R[-1:])
    must(torch.allclose(alone[0], subject.pixels_RCHW[-1], atol=1e-3), "decoded alone, an image has other pixels")
    stored = model.storable(drawings_R)
    must(len(stored) == len(drawings_R) and stored.device.type == "cpu", "storable changes the number or stays away")
    again = model.decode(stored.to(drawings_R.device, drawings_R.dtype))
    shift = largest(again, subject.pixels_RCHW)
    must(shift <= 0.05, f"the stored drawing decodes to pixels that are {shift:.3g} off")


def images_encode_to_drawings(subject: Subject) -> None:
    """Encoded images have the shape and type of sampled drawings, without gradient."""
    found = subject.model.encode(subject.pixels_RCHW)
    expected = subject.drawings_R
    must(found.shape == expected.shape, f"encode returns shape {tuple(found.shape)}, sampling {tuple(expected.shape)}")
    must(found.is_floating_point() == expected.is_floating_point(), f"encode returns {found.dtype}")
    must(not found.requires_grad, "encoded drawings carry a gradient")


def memory_is_estimated(subject: Subject) -> None:
    """The estimated memory of an image is positive."""
    found = subject.model.drawing_bytes(SamplingRecipe())
    must(found > 0, f"drawing_bytes returns {found}")


def has_encode(subject: Subject) -> bool:
    """Whether the model encodes pixels."""
    return provides(subject.model, "encode")
