"""Keeps library advice that does not hold here off the screen, so that what is left is worth reading."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

ADVICE = (
    # pools are in memory: workers would only copy them
    ".*does not have many workers",
    # all but the trunk is frozen, and in eval mode on purpose
    r"Found \d+ module\(s\) in eval mode at the start of training",
    # the data modules begin at the batch that comes next
    "You're resuming from a checkpoint that ended before the epoch ended",
    # Lightning 2.6 builds torch's LeafSpec, deprecated in torch 2.13
    r".isinstance\(treespec, LeafSpec\). is deprecated",
)


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Runs the body, or a function it decorates, without the advice."""
    with warnings.catch_warnings():
        for message in ADVICE:
            warnings.filterwarnings("ignore", message=message)
        yield


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Runs the body without transformers' advice and tables of weights: what is wrong, the caller says in a line."""
    from transformers.utils import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
