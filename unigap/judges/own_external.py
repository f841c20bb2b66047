"""Warn about an external judge that is also the selecting judge: its figures compare the judge with itself."""

from __future__ import annotations

import sys

from lightning.pytorch.utilities import rank_zero_only

from unigap.judges.base import Judge


def warn_of_own_external(judge: Judge, external: Judge) -> None:
    """Print a warning if the external judge is the selecting judge with the same arguments.

    Args:
        judge: The judge that selects training data.
        external: The judge that only measures.
    """
    if external.name == judge.name and external.recipe == judge.recipe:
        _warn(external.name)


@rank_zero_only
def _warn(name: str) -> None:
    print(
        f"warning: the external judge {name!r} is the judge that selects, so precision, accuracy and agreement only "
        "compare it with itself; name another external judge",
        file=sys.stderr,
    )
