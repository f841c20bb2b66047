"""Mixture of judges whose log-odds or scores have different scales: a weighted sum of standard scores."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from unigap.files.durable import make_folder, render_json, write_durable
from unigap.files.outside import read_outside_text
from unigap.judges.base import Judge
from unigap.models.base import UnifiedModel
from unigap.prompt_sets.rows import parse_json
from unigap.records import Candidate

MOST_BYTES = 2**20


@dataclass(frozen=True)
class Scale:
    """Distribution of a judge's log-odds on the images of a pool.

    Attributes:
        mean: Their mean.
        std: Their standard deviation, > 0.
        n: Number of images.
    """

    mean: float
    std: float
    n: int


class MixtureJudge(Judge):
    """Adds up the standard scores of several judges, each with a weight.

    Each judge's log-odds are standardised, z = (logit - mean) / std, with the mean and the standard deviation of a
    fixed set of images. The result is ``sum(w * z) / sum(abs(w))``. It is 0 for an image as good as the average of that
    set, not for one that is as likely right as wrong. So the threshold of 0.5 accepts what is better than average.

    Args:
        judges: Two judges or more.
        scales: The file of means and standard deviations that ``unigap judge scales POOL`` writes.
        weights: A weight for each judge, not 0; empty weighs all alike. A negative one counts against the image.
    """

    def __init__(self, judges: Sequence[Judge], scales: str, weights: Sequence[float] = ()) -> None:
        if len(judges) < 2:
            raise ValueError(f"MixtureJudge needs two judges or more, got {len(judges)}; use a single judge by itself")
        if weights and len(weights) != len(judges):
            raise ValueError(f"weights: {len(weights)} for {len(judges)} judges; give each judge one")
        if not all(math.isfinite(weight) and weight for weight in weights):
            raise ValueError(f"weights must be numbers other than 0, got {list(weights)}; leave such a judge out")
        self.judges, self.weights, self.scales = tuple(judges), tuple(weights), Path(scales)
        found = read_scales(scales)
        for judge in self.judges:
            if judge.name not in found:
                raise ValueError(
                    f"scales {scales!r}: no scale of {judge.name!r}, only of {', '.join(found)[:120]}; judge a pool "
                    "with it, and write the file anew with unigap judge scales"
                )
        self._scales = [found[judge.name] for judge in self.judges]

    @property
    def name(self) -> str:
        return f"mixture-{'+'.join(judge.name for judge in self.judges)}"

    def logits(self, model: UnifiedModel, candidates: Sequence[Candidate], pixels_BCHW: torch.Tensor) -> torch.Tensor:
        weights = self.weights or (1.0,) * len(self.judges)
        total_B = torch.zeros(len(candidates))
        for judge, scale, weight in zip(self.judges, self._scales, weights, strict=True):
            logit_B = judge.logits(model, candidates, pixels_BCHW).float().cpu()
            total_B += weight * (logit_B - scale.mean) / scale.std
        return total_B / sum(map(abs, weights))


def scales_of(logits: Mapping[str, Sequence[float]]) -> dict[str, Scale]:
    """Return the scale of each judge from its log-odds.

    Raises:
        ValueError: A judge has fewer than two verdicts, or gives every image the same.
    """
    scales = {}
    for name, values in logits.items():
        logit_S = torch.tensor(list(values), dtype=torch.float64)
        std = logit_S.std().item() if len(logit_S) > 1 else 0.0
        if not std > 0:
            raise ValueError(
                f"the {len(values)} verdicts by {name!r} are all alike, which gives no scale; leave it out"
            )
        scales[name] = Scale(logit_S.mean().item(), std, len(logit_S))
    return scales


def is_scales(data: bytes) -> bool:
    """Whether the bytes were written by ``write_scales``."""
    try:
        return bool(_scales_in(parse_json(data.decode(), "scales")))
    except ValueError:
        return False


def write_scales(path: Path, scales: Mapping[str, Scale]) -> None:
    """Write scales by the name of the judge, as JSON."""
    make_folder(path.parent)
    write_durable(path, render_json({name: asdict(scale) for name, scale in scales.items()}).encode())


def read_scales(path: str) -> dict[str, Scale]:
    """Read scales by the name of the judge.

    Raises:
        ValueError: The file is missing, or not what ``write_scales`` wrote.
    """
    named, wanted = f"scales {path!r}", "a JSON file of unigap judge scales"
    content = parse_json(read_outside_text(path, named, wanted, MOST_BYTES), named)
    scales = _scales_in(content)
    if scales is None:
        raise ValueError(f"{named}: needs 'mean', 'std' (above 0) and 'n' for each judge; give {wanted}")
    return scales


def _scales_in(content: Any) -> dict[str, Scale] | None:
    try:
        scales = {str(name): Scale(**row) for name, row in content.items()}
        sound = all(math.isfinite(scale.mean) and 0 < scale.std < math.inf for scale in scales.values())
    except (AttributeError, TypeError):
        return None
    return scales if sound and scales else None
