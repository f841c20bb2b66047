"""Several texts about one image in one row, each placed as if it came right behind the image."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch

# Shape legend: B rows, Q texts a row, P tokens of the image before them, T tokens of all texts of a row, S = P + T.


@dataclass(frozen=True)
class Packed:
    """Rows [image | text 1 | text 2 ... | padding].

    Attributes:
        ids_BT: The texts.
        segment_BS: 0 for the image, else the number of the text, -1 for padding.
        place_BS: Place of each token in its own text.
        end_BQ: Where in the row each text's last token stands.
    """

    ids_BT: torch.Tensor
    segment_BS: torch.Tensor
    place_BS: torch.Tensor
    end_BQ: torch.Tensor


def pack(image: int, texts_BQ: Sequence[Sequence[Sequence[int]]], pad: int, device: torch.device) -> Packed:
    """Lays texts out behind images.

    Args:
        image: P.
        texts_BQ: Ids of equally many texts for each image.
        pad: Id of padding.
        device: Where the tensors are to lie.
    """
    size = max(sum(map(len, row)) for row in texts_BQ)
    ids, segments, places, ends = [], [], [], []
    for row in texts_BQ:
        lengths = [len(text) for text in row]
        fill = size - sum(lengths)
        ids.append([*itertools.chain.from_iterable(row), *[pad] * fill])
        segments.append([0] * image + [i for i, length in enumerate(lengths, 1) for _ in range(length)] + [-1] * fill)
        places.append([*range(image), *(image + j for length in lengths for j in range(length)), *[0] * fill])
        ends.append([image - 1 + end for end in itertools.accumulate(lengths)])
    return Packed(*(torch.tensor(rows, device=device) for rows in (ids, segments, places, ends)))
