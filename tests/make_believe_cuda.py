"""A make-believe CUDA device: its tensors say ``cuda:0``, its memory and arithmetic are the CPU's.

It refuses what a GPU refuses: tensors of two devices in one operation, and, while a graph is captured, host reads, host
memory and shapes that depend on data. It counts what makes the host wait. It shows nothing about kernels, memory, or
speed.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch.utils.cpp_extension import include_paths, library_paths

SOURCE = Path(__file__).with_suffix(".cpp")
CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)
MEMORY = 16 << 30
"""Bytes that the device says it has."""
SHAPED_BY_DATA = ("nonzero", "masked_select", "unique", "bincount", "repeat_interleave.Tensor")
"""Beginnings of the names of operations whose result has a shape that the host must read first."""
NOT_DETERMINISTIC = ("cumsum", "put_", "histc", "kthvalue", "median")
"""Beginnings of the names of operations that CUDA refuses under ``torch.use_deterministic_algorithms``."""
WITHOUT_FALLBACK = ("copy_",)
"""Operations that torch has one implementation of for all devices, which looks for a kernel of the device."""


def built_library(folder: Path) -> Path | None:
    """Compile the C++ part into ``folder`` unless it is there; ``None`` without a compiler.

    Args:
        folder: Keeps the library between runs of the tests.
    """
    key = hashlib.sha256(f"{torch.__version__}{SOURCE.read_text()}".encode()).hexdigest()[:16]
    library = folder / f"make_believe_{key}.so"
    if library.exists():
        return library
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        return None
    includes = [f"-I{path}" for path in include_paths()]
    libraries = [f"-L{path}" for path in library_paths()]
    abi = f"-D_GLIBCXX_USE_CXX11_ABI={int(torch.compiled_with_cxx11_abi())}"
    part = library.with_suffix(f".{os.getpid()}")
    options = ["-O0", "-std=c++20", "-shared", "-fPIC", abi, *includes, str(SOURCE), "-o", str(part)]
    subprocess.run([compiler, *options, *libraries, "-lc10", "-ltorch_cpu"], check=True)
    part.rename(library)
    return library


class MakeBelieveCuda:
    """The device, once its library is loaded.

    Attributes:
        waits: How often the host waited for the device, by operation.
    """

    def __init__(self) -> None:
        self.waits: Counter[str] = Counter()
        self._graph: list[Callable[[], None]] | None = None
        self._restore: list[tuple[torch.Tensor, torch.Tensor]] = []

    @contextlib.contextmanager
    def present(self, patch: Any) -> Iterator[MakeBelieveCuda]:
        """Have the device for the body.

        Args:
            patch: pytest's ``monkeypatch``.
        """
        self._patch_torch(patch)
        fallback, aten = torch.library.Library("_", "IMPL"), torch.library.Library("aten", "IMPL")
        try:
            fallback.fallback(self._run, "CUDA")
            for name in WITHOUT_FALLBACK:
                aten.impl(name, partial(self._run, getattr(torch.ops.aten, name).default), "CUDA")
            yield self
        finally:
            fallback._destroy()
            aten._destroy()

    def _run(self, operation: Any, *args: Any, **options: Any) -> Any:
        """Run one operation on the memory that its tensors share with the CPU."""
        self._check(str(operation).removeprefix("aten."), args, options)
        origin: dict[int, torch.Tensor] = {}
        host_args = _numbers_as_tensors(operation._schema, _mapped(args, partial(_on_host, origin)))
        host_options = {name: _mapped(value, partial(_on_host, origin)) for name, value in options.items()}
        before = {key: tensor.shape for key, tensor in origin.items()}
        if self._graph is not None:
            written = _written(operation._schema, host_args, host_options)
            self._restore += [(tensor, tensor.clone()) for tensor in written]
        result = operation(*host_args, **host_options)
        if self._graph is not None:
            self._graph.append(_repeat(operation, host_args, host_options, result))
        return _mapped(result, partial(_on_device, origin, before))

    def _check(self, name: str, args: Any, options: Any) -> None:
        tensors = _leaf_tensors(*args, *options.values())
        on_host = [tensor for tensor in tensors if not tensor.is_cuda and tensor.ndim]
        copies, indexes = name.startswith("copy_"), "index.Tensor" in name or "index_put" in name
        if on_host and not copies and not indexes:
            raise RuntimeError(f"Expected all tensors to be on the same device, but {name} got cuda:0 and cpu")
        generator = options.get("generator")
        if generator is not None and generator.device.type == "cpu":
            raise RuntimeError(f"Expected a 'cuda' device type for generator but {name} found 'cpu'")
        numbers = any(tensor.is_floating_point() for tensor in tensors)
        if numbers and torch.are_deterministic_algorithms_enabled() and name.startswith(NOT_DETERMINISTIC):
            raise RuntimeError(f"{name} does not have a deterministic implementation")
        by_mask = "index_put" in name and any(tensor.dtype == torch.bool for tensor in tensors[1:])
        reads = name.startswith(("_local_scalar_dense", *SHAPED_BY_DATA))
        if on_host or reads or by_mask:
            self.waits[("download " if copies and not args[0].is_cuda else "") + name] += 1
            if self._graph is not None:
                raise RuntimeError(f"operation not permitted when stream is capturing: {name}")

    def _patch_torch(self, patch: Any) -> None:
        """Answer what the code asks of ``torch.cuda``, and replay graphs operation by operation."""

        class Graph:
            def __init__(self) -> None:
                self.steps: list[Callable[[], None]] = []

            def replay(self) -> None:
                for step in self.steps:
                    step()

        @contextlib.contextmanager
        def capturing(graph: Graph, **options: Any) -> Iterator[None]:
            self._graph = graph.steps
            try:
                yield
            finally:
                self._graph = None
                # capturing computes nothing
                while self._restore:
                    tensor, content = self._restore.pop()
                    tensor.copy_(content)

        class Stream:
            def wait_stream(self, other: Stream) -> None:
                """One stream has nothing to wait for."""

        answers = {
            "_lazy_init": lambda: None,
            "is_available": lambda: True,
            "is_bf16_supported": lambda *_: True,
            "get_device_properties": lambda device: SimpleNamespace(total_memory=MEMORY),
            "Stream": Stream,
            "current_stream": Stream,
            "stream": lambda _: contextlib.nullcontext(),
            "CUDAGraph": Graph,
            "graph": capturing,
        }
        for name, answer in answers.items():
            patch.setattr(torch.cuda, name, answer)


def _mapped(value: Any, function: Callable[[Any], Any]) -> Any:
    """Apply a function to what an operation takes or returns, in lists too; torch's own is too slow here."""
    return type(value)(map(function, value)) if isinstance(value, list | tuple) else function(value)


def _on_host(origin: dict[int, torch.Tensor], value: Any) -> Any:
    if isinstance(value, list | tuple):
        return _mapped(value, partial(_on_host, origin))
    if isinstance(value, torch.device):
        return CPU
    if not isinstance(value, torch.Tensor) or not value.is_cuda:
        return value
    # an operation gives its result a size, which memory of another tensor cannot take
    alias = _alias_on(value, CPU) if value.numel() else torch.empty(value.shape, dtype=value.dtype)
    origin[id(alias)] = value
    return alias


def _on_device(origin: dict[int, torch.Tensor], before: dict[int, torch.Size], value: Any) -> Any:
    """Return the operation's own argument where it wrote into that."""
    if not isinstance(value, torch.Tensor):
        return value
    argument = origin.get(id(value))
    if argument is None:
        return _alias_on(value, CUDA)
    if value.shape != before[id(value)]:
        argument.data = _alias_on(value, CUDA)
    return argument


def _alias_on(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    return torch.ops.make_believe.alias_on.default(tensor, device)


def _numbers_as_tensors(schema: Any, args: Sequence[Any]) -> list[Any]:
    """Undo what Python's bindings of overloaded operators do: they hand over a number for a tensor."""
    return [
        torch.tensor(value) if isinstance(value, int | float) and isinstance(argument.type, torch.TensorType) else value
        for value, argument in zip(args, schema.arguments, strict=False)
    ]


def _leaf_tensors(*values: Any) -> list[torch.Tensor]:
    parts = [value if isinstance(value, list | tuple) else [value] for value in values]
    return [leaf for part in parts for leaf in part if isinstance(leaf, torch.Tensor)]


def _written(schema: Any, args: Any, options: Any) -> list[torch.Tensor]:
    given = {argument.name: value for argument, value in zip(schema.arguments, args, strict=False)} | options
    written = [a.name for a in schema.arguments if a.alias_info is not None and a.alias_info.is_write]
    return [value for name in written if isinstance(value := given.get(name), torch.Tensor)]


def _repeat(operation: Any, args: Any, options: dict[str, Any], result: Any) -> Callable[[], None]:
    """Return a function that computes an operation again, into the memory of its first result."""
    outputs = _leaf_tensors(result)
    inputs = {tensor.untyped_storage().data_ptr() for tensor in _leaf_tensors(*args, *options.values())}
    is_view = any(output.untyped_storage().data_ptr() in inputs for output in outputs)
    if is_view and not operation._schema.is_mutable:
        return lambda: None

    def again() -> None:
        for output, new in zip(outputs, _leaf_tensors(operation(*args, **options)), strict=True):
            if output is not new:
                output.copy_(new)

    return again
