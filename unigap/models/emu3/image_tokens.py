"""Token ids and line layout of an Emu3 image, whose codes are part of the text vocabulary."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

# Shape legend: R images, M codes of an image, I tokens of an image (codes and ends of lines), V image codes.


class ImageTokens(nn.Module):
    """Map image codes to token ids, with an end-of-line token after each line.

    Args:
        mapping: transformers' ``Emu3ImageVocabularyMapping``, made from the config's vocabulary map.
        n_codes: V.
        rows: Lines of an image.
        columns: Codes per line.
    """

    ids_V: torch.Tensor
    """Token id of each code."""
    position_M: torch.Tensor
    """Index of each code among the I tokens."""

    def __init__(self, mapping: Any, n_codes: int, rows: int, columns: int) -> None:
        super().__init__()
        self.n_codes, self.rows, self.columns = n_codes, rows, columns
        self.line_end: int = mapping.eol_token_id
        ids_V = mapping.img2bpe_mapping_tensor[:n_codes].long()
        self._lowest_id, self._highest_id = int(ids_V.min()), int(ids_V.max())
        code_M = torch.arange(rows * columns)
        # not part of a checkpoint: they follow from its config
        self.register_buffer("ids_V", ids_V, persistent=False)
        self.register_buffer("position_M", code_M + code_M // columns, persistent=False)

    @property
    def length(self) -> int:
        """I, the number of tokens of an image."""
        return self.rows * (self.columns + 1)

    def to_ids(self, codes_RM: torch.Tensor) -> torch.Tensor:
        """Return the token ids (R, I) of images."""
        lines = self.ids_V[codes_RM].view(-1, self.rows, self.columns)
        return F.pad(lines, (0, 1), value=self.line_end).flatten(1)

    def code_logits(self, head: nn.Linear, hidden: torch.Tensor) -> torch.Tensor:
        """Return the logits (..., V) of the image codes only.

        Args:
            head: From hidden states to logits of the vocabulary; only the rows of image codes are computed.
            hidden: Hidden states (..., D).
        """
        logits = F.linear(hidden, head.weight[self._lowest_id : self._highest_id + 1])
        return logits.index_select(-1, self.ids_V - self._lowest_id)
