"""Check judges before anything is sampled: a judge that cannot be loaded would be noticed after the first batch."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import Any

from unigap.judges.base import Judge


class EarlyCheck(ABC):
    """A judge that needs more than the trained model, such as a checkpoint or a server."""

    @abstractmethod
    def check(self) -> None:
        """Check that the judge can judge, in seconds and without keeping weights in memory.

        Raises:
            ValueError: It cannot; the message says what is missing and what to do.
        """


def check_early(judges: Iterable[Judge]) -> None:
    """Check judges and the judges in their constructor arguments.

    Raises:
        ValueError: One of them cannot judge.
    """
    for judge in judges:
        for one in _with_inner(judge):
            if isinstance(one, EarlyCheck):
                one.check()


def _with_inner(value: Any) -> Iterator[Judge]:
    if isinstance(value, Judge):
        yield value
        for argument in inspect.signature(type(value)).parameters:
            yield from _with_inner(getattr(value, argument, None))
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _with_inner(item)
