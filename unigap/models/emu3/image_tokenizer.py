"""Pictures and codes of an Emu3: its tokenizer of films, used for a film of one frame."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional as F

# Shape legend: B images, M image codes, D width of a code, T frames, C H W image channels and sides.


class Emu3ImageTokenizer:
    """What transformers' ``Emu3VQVAE`` computes for still images, without the copies of the frame it computes beside.

    A still image is a film of equal frames (four for the published model), of which one code grid is left. Its
    frames meet only in the layers over time: before them one frame stands for all, behind them the first is enough.

    Args:
        vq: transformers' ``Emu3VQVAE``, in eval mode.
        images: The checkpoint's image processor, for the mean and spread of its pixels.
        rows: Lines of codes of an image.
        columns: Codes of a line.
    """

    def __init__(self, vq: Any, images: Any, rows: int, columns: int) -> None:
        self.vq, self.rows, self.columns = vq, rows, columns
        self.side = (rows * vq.spatial_scale_factor, columns * vq.spatial_scale_factor)
        # from [-1, 1] to what the network sees
        self.mean = torch.tensor(images.image_mean).view(3, 1, 1) * 2 - 1
        self.spread = torch.tensor(images.image_std).view(3, 1, 1) * 2

    @torch.no_grad()
    def decode(self, codes_BM: torch.Tensor) -> torch.Tensor:
        """Pixels in [-1, 1], float32 (B, 3, H, W)."""
        if not len(codes_BM):  # transformers' layers over time cannot be given no frame at all
            return torch.zeros(0, 3, *self.side, device=codes_BM.device)
        with torch.autocast(codes_BM.device.type, enabled=False):
            code_BHWD = self.vq.quantize.embedding(codes_BM.view(-1, self.rows, self.columns))
            return self.rebuilt(code_BHWD.permute(0, 3, 1, 2)).clamp(-1, 1)

    @torch.no_grad()
    def encode(self, pixels_BCHW: torch.Tensor) -> torch.Tensor:
        """Codes, int64 (B, M), of pictures in [-1, 1] of any size."""
        pixels = pixels_BCHW.to(self.vq.device).float()
        if pixels.shape[-2:] != self.side:
            pixels = F.interpolate(pixels, self.side, mode="bicubic", antialias=True)
        with torch.autocast(pixels.device.type, enabled=False):
            return self.vq.quantize(self.latents(pixels)[:, None]).flatten(1)

    def rebuilt(self, code_BDHW: torch.Tensor) -> torch.Tensor:
        """Pixels (B, 3, H, W), about in [-1, 1], of the vectors of codes (B, D, rows, columns), differentiable."""
        decoder, quant_BDTHW = self.vq.decoder, code_BDHW[:, :, None]
        both = torch.cat([self.vq.post_quant_conv(quant_BDTHW), quant_BDTHW])
        for layer in decoder.time_res_stack:
            both = layer(both)
        for layer in decoder.time_conv:
            both = _swish(layer(both))
        hidden, quant = both[:, :, 0].chunk(2)
        hidden = decoder.middle_block(decoder.conv_in(hidden), quant)
        hidden = decoder.norm_out(decoder.up_block(hidden, quant), quant)
        pixels_BCHW = decoder.conv_out(_swish(hidden))
        return pixels_BCHW * self.spread.to(pixels_BCHW) + self.mean.to(pixels_BCHW)

    def latents(self, pixels_BCHW: torch.Tensor) -> torch.Tensor:
        """What the nearest codes are taken of, (B, D, rows, columns), differentiable.

        Args:
            pixels_BCHW: Pictures in [-1, 1], of the size of drawings.
        """
        encoder = self.vq.encoder
        seen = (pixels_BCHW - self.mean.to(pixels_BCHW)) / self.spread.to(pixels_BCHW)
        hidden = encoder.middle_block(encoder.down_block(encoder.conv_in(seen)))
        hidden = encoder.conv_out(_swish(encoder.norm_out(hidden)))
        film = hidden[:, :, None].expand(-1, -1, self.vq.config.temporal_downsample_factor, -1, -1)
        for layer in encoder.time_conv:
            film = _swish(layer(film))
        for layer in encoder.time_res_stack:
            film = layer(film)
        return self.vq.quant_conv(film)[:, :, 0]


def _swish(hidden: torch.Tensor) -> torch.Tensor:
    return hidden * hidden.sigmoid()
