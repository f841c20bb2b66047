"""Former name of `unigap.evaluation.probe_sources`, so that class paths in older configs are still found."""

from typing import Any

from unigap.evaluation import probe_sources


def __getattr__(name: str) -> Any:
    return getattr(probe_sources, name)
