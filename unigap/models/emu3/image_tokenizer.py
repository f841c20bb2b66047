"""Encode and decode still images with Emu3's video tokenizer."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional as F

from unigap.models.engine.precision import float32_arithmetic

# Shape legend: B images, M image codes, D code width, T frames, C H W image channels and sides.


class Emu3ImageTokenizer:
    """Image tokenizer that equals transformers' ``Emu3VQVAE`` on still images and computes one frame instead of four.

    ``Emu3VQVAE`` treats a still image as a video of equal frames (four in the published model) with one code grid. The
    frames interact only in the temporal layers: before them one frame suffices, and after them the first.

    Args:
        vq: transformers' ``Emu3VQVAE``, in eval mode.
        image_processor: The checkpoint's image processor, for the mean and standard deviation of pixels.
        rows: Lines of an image.
        columns: Codes per line.
    """

    def __init__(self, vq: Any, image_processor: Any, rows: int, columns: int) -> None:
        self.vq, self.rows, self.columns = vq, rows, columns
        self.side = (rows * vq.spatial_scale_factor, columns * vq.spatial_scale_factor)
        # mean and standard deviation for pixels in [-1, 1]
        self.mean = torch.tensor(image_processor.image_mean).view(3, 1, 1) * 2 - 1
        self.std = torch.tensor(image_processor.image_std).view(3, 1, 1) * 2

    @torch.no_grad()
    def decode(self, codes_BM: torch.Tensor) -> torch.Tensor:
        """Decode codes to pixels in [-1, 1], float32 (B, 3, H, W)."""
        if not len(codes_BM):  # transformers' temporal layers fail on an empty batch
            return torch.zeros(0, 3, *self.side, device=codes_BM.device)
        with float32_arithmetic(codes_BM.device.type):
            code_BHWD = self.vq.quantize.embedding(codes_BM.view(-1, self.rows, self.columns))
            return self.reconstruct(code_BHWD.permute(0, 3, 1, 2)).clamp(-1, 1)

    @torch.no_grad()
    def encode(self, pixels_BCHW: torch.Tensor) -> torch.Tensor:
        """Encode pixels in [-1, 1] of any size to codes, int64 (B, M)."""
        pixels = pixels_BCHW.to(self.vq.device).float()
        if pixels.shape[-2:] != self.side:
            pixels = F.interpolate(pixels, self.side, mode="bicubic", antialias=True)
        with float32_arithmetic(pixels.device.type):
            return self.vq.quantize(self.latents(pixels)[:, None]).flatten(1)

    def reconstruct(self, code_BDHW: torch.Tensor) -> torch.Tensor:
        """Decode code embeddings (B, D, rows, columns) to pixels (B, 3, H, W), about in [-1, 1], differentiable."""
        decoder, quant_BDTHW = self.vq.decoder, code_BDHW[:, :, None]
        hidden_and_quant = torch.cat([self.vq.post_quant_conv(quant_BDTHW), quant_BDTHW])
        for layer in decoder.time_res_stack:
            hidden_and_quant = layer(hidden_and_quant)
        for layer in decoder.time_conv:
            hidden_and_quant = _swish(layer(hidden_and_quant))
        hidden, quant = hidden_and_quant[:, :, 0].chunk(2)
        hidden = decoder.middle_block(decoder.conv_in(hidden), quant)
        hidden = decoder.norm_out(decoder.up_block(hidden, quant), quant)
        pixels_BCHW = decoder.conv_out(_swish(hidden))
        return pixels_BCHW * self.std.to(pixels_BCHW) + self.mean.to(pixels_BCHW)

    def latents(self, pixels_BCHW: torch.Tensor) -> torch.Tensor:
        """Return the latents before quantisation, (B, D, rows, columns), differentiable.

        Args:
            pixels_BCHW: Pixels in [-1, 1], of the size of generated images.
        """
        encoder = self.vq.encoder
        normalised = (pixels_BCHW - self.mean.to(pixels_BCHW)) / self.std.to(pixels_BCHW)
        hidden = encoder.middle_block(encoder.down_block(encoder.conv_in(normalised)))
        hidden = encoder.conv_out(_swish(encoder.norm_out(hidden)))
        video = hidden[:, :, None].expand(-1, -1, self.vq.config.temporal_downsample_factor, -1, -1)
        for layer in encoder.time_conv:
            video = _swish(layer(video))
        for layer in encoder.time_res_stack:
            video = layer(video)
        return self.vq.quant_conv(video)[:, :, 0]


def _swish(hidden: torch.Tensor) -> torch.Tensor:
    return hidden * hidden.sigmoid()
