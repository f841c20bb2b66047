"""Readers of published prompt sets into ``Prompt`` records. One format a file."""

from __future__ import annotations

from collections.abc import Callable

from unigap.prompt_sets.dsg import read_dsg
from unigap.prompt_sets.geneval import read_geneval
from unigap.prompt_sets.hub import read_datasets
from unigap.prompt_sets.plain import read_prompt_file, write_prompt_file
from unigap.prompt_sets.science_t2i import read_science_t2i
from unigap.prompt_sets.t2i_compbench import read_t2i_compbench
from unigap.prompt_sets.tifa import read_tifa
from unigap.prompt_sets.wise import read_wise
from unigap.records import Prompt

READERS: dict[str, Callable[[str], list[Prompt]]] = {
    "t2i-compbench": read_t2i_compbench,
    "geneval": read_geneval,
    "science-t2i": read_science_t2i,
    "dsg": read_dsg,
    "dpg": read_dsg,
    "tifa": read_tifa,
    "wise": read_wise,
    "datasets": read_datasets,
}
"""Reader of PATH in a source ``NAME:PATH``, by NAME."""

__all__ = ["READERS", "read_prompt_file", "write_prompt_file"]
