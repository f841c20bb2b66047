"""An image as Emu3 writes it: codes among the words, line by line."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

# Shape legend: R images, M image codes of one, I tokens of one with the ends of its lines, V image codes.


class ImageTokens(nn.Module):
    """The words that are image codes, and how an image is written with them.

    Args:
        mapping: transformers' ``Emu3ImageVocabularyMapping``, made from the config's vocabulary map.
        n_codes: V.
        rows: Lines of an image.
        columns: Codes of a line.
    """

    ids_V: torch.Tensor
    """Word of each code."""
    place_M: torch.Tensor
    """Where in a written image each code stands."""

    def __init__(self, mapping: Any, n_codes: int, rows: int, columns: int) -> None:
        super().__init__()
        self.n_codes, self.rows, self.columns = n_codes, rows, columns
        self.line_end: int = mapping.eol_token_id
        ids_V = mapping.img2bpe_mapping_tensor[:n_codes].long()
        self._first, self._last = int(ids_V.min()), int(ids_V.max())
        code_M = torch.arange(rows * columns)
        # no part of a checkpoint: they follow from its config
        self.register_buffer("ids_V", ids_V, persistent=False)
        self.register_buffer("place_M", code_M + code_M // columns, persistent=False)

    @property
    def written_length(self) -> int:
        """I."""
        return self.rows * (self.columns + 1)

    def written(self, codes_RM: torch.Tensor) -> torch.Tensor:
        """Ids (R, I) of images: each line of codes and its end."""
        lines = self.ids_V[codes_RM].view(-1, self.rows, self.columns)
        return F.pad(lines, (0, 1), value=self.line_end).flatten(1)

    def code_logits(self, head: nn.Linear, hidden: torch.Tensor) -> torch.Tensor:
        """Hidden states (..., D) to logits of the image codes alone (..., V): no code is another word.

        Args:
            head: Hidden states to logits of all words; only the part that holds the codes is computed.
            hidden: Hidden states.
        """
        logits = F.linear(hidden, head.weight[self._first : self._last + 1])
        return logits.index_select(-1, self.ids_V - self._first)
