"""Suppress library warnings and notes that do not apply here."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

ADVICE = (
    # pools are in memory: workers would only copy them
    ".*does not have many workers",
    # all modules but the shared LLM are frozen and in eval mode
    r"Found \d+ module\(s\) in eval mode at the start of training",
    # the data modules resume at the next batch
    "You're resuming from a checkpoint that ended before the epoch ended",
    # a continued run is compared with the recipe of its checkpoint
    "Be aware that when using `ckpt_path`, callbacks used to create the checkpoint need to be provided",
    # the figures of a validation are computed from the gathered samples of all processes
    ".*sync_dist=True",
    # short epochs are usual here, and curves.json keeps every epoch
    "The number of training batches .* is smaller than the logging interval",
    # stages refuse weight averaging with sharded weights
    "You're using the WeightAveraging callback with a model that overrides the configure_model",
    # Lightning 2.6 builds torch's LeafSpec, deprecated in torch 2.13
    r".isinstance\(treespec, LeafSpec\). is deprecated",
)
"""Warnings to suppress."""
NOTES = re.compile(
    "💡 Tip: |[GT]PU available: False|`Trainer.fit` stopped: `max_(epochs|steps)=|`weights_only` was not set"
)
"""Log messages of Lightning to suppress: other products, missing devices, and limits that the user set."""
NOTED_BY = (
    "lightning.pytorch.utilities.rank_zero",
    "lightning.fabric.utilities.rank_zero",
    "lightning.pytorch.trainer.connectors.checkpoint_connector",
)


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Run the body, or the decorated function, without the warnings and notes above."""
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
    """Run the body without transformers' warnings, tables and progress bars of weights; the caller reports errors."""
    from huggingface_hub.utils.tqdm import enable_progress_bars
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    if bars:
        logging.disable_progress_bar()
        enable_progress_bars()  # of downloads, which take long
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


@contextmanager
def quiet_datasets() -> Iterator[None]:
    """Run the body without the error logs of ``datasets``; the caller reports errors."""
    from datasets.utils import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.CRITICAL)
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
