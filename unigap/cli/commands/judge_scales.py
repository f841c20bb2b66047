"""``unigap judge scales``: mean and standard deviation of each judge's verdicts on a pool, for ``MixtureJudge``."""

from __future__ import annotations

from pathlib import Path

from unigap.files.outputs import check_output
from unigap.judges.mixture import is_scales, scales_of, write_scales
from unigap.pool import Pool


def judge_scales(pool: str, out: str = "runs/scales.json", judges: str = "") -> None:
    """Write the mean and the standard deviation of each judge's log-odds on the images of a pool.

    Args:
        pool: The pool.
        out: JSON file to write, for ``unigap.judges.MixtureJudge``.
        judges: Names of judges, separated by commas, e.g. ``self,human``. Default: all.
    """
    path = Path(out)
    check_output(path, "--out", "a file of scales", is_scales)
    logits: dict[str, list[float]] = {}
    for judgment in Pool.open(pool).judgments():
        logits.setdefault(judgment.judge, []).append(judgment.logit)
    names = [name.strip() for name in judges.split(",") if name.strip()] or sorted(logits)
    for name in names or [""]:
        if name not in logits:
            known = ", ".join(sorted(logits)) or "none"
            raise ValueError(f"pool {pool!r} holds no verdict of {name!r}; it has verdicts of: {known}")
    scales = scales_of({name: logits[name] for name in names})
    write_scales(path, scales)
    for name, scale in scales.items():
        print(f"{name}: mean {scale.mean:.3f}, standard deviation {scale.std:.3f}, {scale.n} images")
    print(out)
