"""Benchmarks from picture to score: what each asks of an image, and the folder with its figures."""

from unigap.bench.base import Benchmark
from unigap.bench.compbench import CompBench
from unigap.bench.geneval import GenEval
from unigap.bench.questions import DpgBench, Dsg
from unigap.bench.tifa import Tifa
from unigap.bench.wise import Wise

BENCHMARKS: dict[str, type[Benchmark]] = {
    "geneval": GenEval,
    "compbench": CompBench,
    "dsg": Dsg,
    "dpg": DpgBench,
    "tifa": Tifa,
    "wise": Wise,
}
"""Benchmarks by the name that ``unigap bench`` takes."""

__all__ = ["BENCHMARKS", "Benchmark"]
