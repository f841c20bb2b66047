"""The image tokenizer: codes are signs, the entropy penalty is the paper's, and it learns."""

from __future__ import annotations

import itertools
import math
import re

import pytest
import torch
from small_showo import SMALL_MAGVIT
from torch.nn import functional as F

from unigap.models.showo.magvit import Attention, Magvit, MagvitConfig, codes_of, quantise, signs

PIXELS = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.fixture(scope="module")
def magvit() -> Magvit:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Magvit(SMALL_MAGVIT).eval().requires_grad_(False)


def test_a_code_is_the_number_its_signs_spell() -> None:
    latent = torch.tensor([[0.3, -2.0, 0.1], [-1.0, -1e-9, 5.0], [0.0, 1.0, 1.0]])
    assert codes_of(latent).tolist() == [0b101, 0b001, 0b011]
    assert signs(torch.tensor([6]), 3).tolist() == [[1, 1, -1]]
    every = torch.arange(2**13)
    assert torch.equal(codes_of(signs(every, 13)), every)


def test_pixels_become_the_signs_of_latents_and_codes_become_pixels(magvit: Magvit) -> None:
    code_BM = magvit.encode(PIXELS)
    assert code_BM.shape == (3, 16) and code_BM.dtype == torch.int64
    latent_BDHW = magvit.latents(PIXELS)
    assert latent_BDHW.shape == (3, 6, 4, 4)
    for image, row, column in itertools.product(range(3), range(4), range(4)):
        digits = "".join("1" if value > 0 else "0" for value in latent_BDHW[image, :, row, column].tolist())
        assert code_BM[image, 4 * row + column] == int(digits, 2)
    drawn = magvit.decode(code_BM)
    assert drawn.shape == PIXELS.shape and drawn.dtype == torch.float32
    torch.testing.assert_close(magvit.decode(code_BM[1:2]), drawn[1:2], atol=1e-5, rtol=0)
    assert torch.equal(magvit.encode(PIXELS[2:]), code_BM[2:])
    assert not torch.allclose(drawn[0], drawn[1], atol=1e-3)


def test_the_codebook_tells_tokenizers_apart(magvit: Magvit) -> None:
    torch.manual_seed(1)
    other = Magvit(SMALL_MAGVIT)
    assert magvit.codebook.shape == (64, 6) and not torch.allclose(magvit.codebook, other.codebook)
    conv = magvit.decoder.post_quant_conv
    expected = signs(torch.tensor([37]), 6) @ conv.weight[..., 0, 0].T + conv.bias
    torch.testing.assert_close(magvit.codebook[37:38], expected)


def test_attention_is_softmax_over_all_places() -> None:
    torch.manual_seed(0)
    part, given = Attention(8, 2), torch.randn(2, 8, 3, 5)
    q, k, v = (conv(part.norm(given)).flatten(2) for conv in (part.q, part.k, part.v))
    weight = (torch.einsum("bci,bcj->bij", q, k) / math.sqrt(8)).softmax(-1)
    heard = torch.einsum("bij,bcj->bci", weight, v).view_as(given)
    torch.testing.assert_close(part(given), given + part.proj_out(heard), atol=1e-5, rtol=1e-5)


def test_quantisation_passes_the_gradient_straight_through() -> None:
    latent = torch.randn(2, 3, 2, 2, generator=torch.Generator().manual_seed(0)).requires_grad_()
    found = quantise(latent)
    assert torch.equal(found.latent_BDHW, torch.where(latent > 0, 1.0, -1.0))
    weight = torch.arange(24.0).view_as(latent)
    gradient = torch.autograd.grad((found.latent_BDHW * weight).sum(), latent)[0]
    assert torch.equal(gradient, weight)
    assert found.commitment.item() == pytest.approx((latent.abs() - 1).square().mean().item(), rel=1e-6)


@pytest.mark.parametrize("sharpness", [0.1, 1.0])
def test_the_entropy_penalty_is_that_of_choices_among_all_codes(sharpness: float) -> None:
    latent_ND = torch.randn(5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    book_VD = signs(torch.arange(16), 4).double()
    share_NV = (-sharpness * torch.cdist(latent_ND, book_VD).square()).softmax(-1)
    alone = torch.special.entr(share_NV).sum(-1).mean()
    together = torch.special.entr(share_NV.mean(0)).sum()
    found = quantise(latent_ND.T[None, :, :, None], sharpness).entropy
    on_off = torch.stack([share_NV[:, book_VD[:, d] > 0].sum(1) for d in range(4)], 1).mean(0)
    channels = (torch.special.entr(on_off) + torch.special.entr(1 - on_off)).sum()
    assert channels >= together, "independent channels are the most even use of the codes there can be"
    torch.testing.assert_close(found, alone - channels, atol=1e-10, rtol=0)
    assert quantise(latent_ND[:1].T[None, :, :, None], sharpness).entropy.abs() < 1e-12, "one choice is all choices"


def test_the_entropy_penalty_prefers_decided_latents_and_evenly_used_codes() -> None:
    corners = signs(torch.arange(16), 4).T[None, :, :, None]
    even, undecided, same = (quantise(latent).entropy for latent in (3 * corners, 0.1 * corners, 3 * corners.abs()))
    assert even < undecided < -1e-4 and same.abs() < 1e-4
    assert even.item() == pytest.approx(-4 * math.log(2), abs=1e-3)


def test_it_learns_to_rebuild_a_picture() -> None:
    torch.manual_seed(0)
    magvit = Magvit(SMALL_MAGVIT)
    optimizer = torch.optim.AdamW(magvit.parameters(), lr=3e-3)
    target = F.interpolate(PIXELS[:1, :, ::8, ::8], scale_factor=8)
    losses = []
    for _ in range(25):
        found = quantise(magvit.latents(target))
        rebuilt = F.mse_loss(magvit.decoder(found.latent_BDHW), target)
        losses.append(rebuilt.item())
        optimizer.zero_grad()
        (rebuilt + 0.1 * found.commitment + 0.1 * found.entropy).backward()
        optimizer.step()
    assert losses[-1] < 0.5 * losses[0]
    before = magvit.encoder.conv_in.weight.grad
    assert before is not None and before.abs().sum() > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bits": 0}, "positive integers, got 0"),
        ({"encoder_blocks": (1, 1.5, 1, 1, 1)}, "positive integers, got 1.5"),
        ({"decoder_blocks": (1, 1)}, "must have equal lengths"),
        ({"groups": 48}, "groups must divide channels, got 48 groups and 128 channels"),
    ],
)
def test_a_shape_that_cannot_be_is_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        MagvitConfig(**options)
