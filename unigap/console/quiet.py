"""Keeps library advice that does not hold here off the screen, so that what is left is worth reading."""

from __future__ import annotations

import logging
import re
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
    # a continued run is held against the recipe of its checkpoint
    "Be aware that when using `ckpt_path`, callbacks used to create the checkpoint need to be provided",
    # short epochs are usual here, and curves.json keeps every epoch
    "The number of training batches .* is smaller than the logging interval",
    # stages refuse averaging where they shard
    "You're using the WeightAveraging callback with a model that overrides the configure_model",
    # Lightning 2.6 builds torch's LeafSpec, deprecated in torch 2.13
    r".isinstance\(treespec, LeafSpec\). is deprecated",
)
"""Warnings that stay away."""
NOTES = re.compile(
    "💡 Tip: |[GT]PU available: False|`Trainer.fit` stopped: `max_(epochs|steps)=|`weights_only` was not set"
)
"""Notes of Lightning's that stay away: other products, devices that are not there, and what was asked for."""
NOTED_BY = (
    "lightning.pytorch.utilities.rank_zero",
    "lightning.fabric.utilities.rank_zero",
    "lightning.pytorch.trainer.connectors.checkpoint_connector",
)


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Runs the body, or a function it decorates, without the advice and the notes."""
    loggers = [logging.getLogger(name) for name in NOTED_BY]
    with warnings.catch_warnings():
        for message in ADVICE:
            warnings.filterwarnings("ignore", message=message)
        for logger in loggers:
            logger.addFilter(_is_news)
        try:
            yield
        finally:
            for logger in loggers:
                logger.removeFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
    return not NOTES.match(record.getMessage())


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Runs the body without transformers' advice and its tables and bars of weights: what is wrong, the caller says."""
    from huggingface_hub.utils.tqdm import enable_progress_bars
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    if bars:
        logging.disable_progress_bar()
        enable_progress_bars()  # of downloads, which last
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


@contextmanager
def quiet_datasets() -> Iterator[None]:
    """Runs the body without what ``datasets`` logs of a failure: what is wrong, the caller says."""
    from datasets.utils import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.CRITICAL)
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
