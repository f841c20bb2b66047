"""Cut images, or grids of latents, into square patches, and put the patches together again."""

from __future__ import annotations

import torch

# Shape legend: B images, C channels, H W image sides, N patches, P numbers of a patch.


def patched(images_BCHW: torch.Tensor, patch: int) -> torch.Tensor:
    """Cut images into square patches, row by row, each flattened with channels last, (B, N, P)."""
    batch, channels, height, width = images_BCHW.shape
    grid = images_BCHW.reshape(batch, channels, height // patch, patch, width // patch, patch)
    return grid.permute(0, 2, 4, 3, 5, 1).reshape(batch, -1, patch * patch * channels)


def unpatched(patches_BNP: torch.Tensor, rows: int, columns: int, patch: int) -> torch.Tensor:
    """Put the patches of ``patched`` together again, (B, C, H, W)."""
    grid = patches_BNP.reshape(len(patches_BNP), rows, columns, patch, patch, -1)
    return grid.permute(0, 5, 1, 3, 2, 4).reshape(len(patches_BNP), -1, rows * patch, columns * patch)
