"""Pictures and codes of an Emu3: its tokenizer of films, used for a film of one frame."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional as F

# Shape legend: B images, M image codes, D width of a code, T frames, C H W image channels and sides.


class Emu3Pictures:
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
        with torch.autocast(codes_BM.device.type, enabled=False):
            pixels_BCHW = self._decoded(codes_BM.view(-1, self.rows, self.columns))
            return (pixels_BCHW * self.spread.to(pixels_BCHW) + self.mean.to(pixels_BCHW)).clamp(-1, 1)

    @torch.no_grad()
    def encode(self, pixels_BCHW: torch.Tensor) -> torch.Tensor:
        """Codes, int64 (B, M), of pictures in [-1, 1] of any size."""
        pixels = pixels_BCHW.to(self.vq.device).float()
        if pixels.shape[-2:] != self.side:
            pixels = F.interpolate(pixels, self.side, mode="bicubic", antialias=True)
        with torch.autocast(pixels.device.type, enabled=False):
            return self._encoded((pixels - self.mean.to(pixels)) / self.spread.to(pixels)).flatten(1)

    def _decoded(self, codes_BHW: torch.Tensor) -> torch.Tensor:
        decoder = self.vq.decoder
        quant_BDTHW = self.vq.quantize.embedding(codes_BHW).permute(0, 3, 1, 2)[:, :, None]
        both = torch.cat([self.vq.post_quant_conv(quant_BDTHW), quant_BDTHW])
        for layer in decoder.time_res_stack:
            both = layer(both)
        for layer in decoder.time_conv:
            both = _swish(layer(both))
        hidden, quant = both[:, :, 0].chunk(2)
        hidden = decoder.middle_block(decoder.conv_in(hidden), quant)
        hidden = decoder.norm_out(decoder.up_block(hidden, quant), quant)
        return decoder.conv_out(_swish(hidden))

    def _encoded(self, pixels_BCHW: torch.Tensor) -> torch.Tensor:
        encoder = self.vq.encoder
        hidden = encoder.middle_block(encoder.down_block(encoder.conv_in(pixels_BCHW)))
        hidden = encoder.conv_out(_swish(encoder.norm_out(hidden)))
        film = hidden[:, :, None].expand(-1, -1, self.vq.config.temporal_downsample_factor, -1, -1)
        for layer in encoder.time_conv:
            film = _swish(layer(film))
        for layer in encoder.time_res_stack:
            film = layer(film)
        return self.vq.quantize(self.vq.quant_conv(film).transpose(1, 2))[:, 0]


def _swish(hidden: torch.Tensor) -> torch.Tensor:
    return hidden * hidden.sigmoid()
