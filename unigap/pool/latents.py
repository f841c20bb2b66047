"""Latents of a pool: float16 drawings in NumPy files of their own, read row by row."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import numpy as np

from unigap.files.plain import check_plain
from unigap.records import DrawingFormat


def latent_bytes(rows: np.ndarray) -> bytes:
    """Return rows of latents as a ``.npy`` file; equal rows give equal bytes."""
    sink = io.BytesIO()
    np.save(sink, np.ascontiguousarray(rows), allow_pickle=False)
    return sink.getvalue()


def write_header(file: IO[bytes], format: DrawingFormat, rows: int) -> None:
    """Write the header of a ``.npy`` file of latents; its rows follow as plain bytes."""
    header = {"descr": np.dtype(format.dtype).str, "fortran_order": False, "shape": (rows, *format.shape)}
    np.lib.format.write_array_header_1_0(file, header)


def open_latents(path: Path, format: DrawingFormat) -> np.ndarray:
    """Map a file of latents into memory, (B, ...); rows are read from disk when they are used.

    Raises:
        ValueError: The file is missing, no such file, or holds drawings of another type or shape.
    """
    try:
        check_plain(path)
        rows: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise ValueError(f"{path} is missing") from None
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"{path} is damaged: {str(error).splitlines()[0]}") from error
    if rows.dtype != format.dtype or rows.shape[1:] != format.shape:
        raise ValueError(f"{path} holds drawings of {rows.dtype} {rows.shape[1:]}, not {format.dtype} {format.shape}")
    return rows


def merge_latents(
    file: IO[bytes], folder: Path, names: Sequence[str], owner_N: np.ndarray, row_N: np.ndarray, format: DrawingFormat
) -> None:
    """Write latents of several files as one file, with a part of them in memory.

    Args:
        file: The file to write.
        folder: Folder of the files to read.
        names: Their names.
        owner_N: Number of the file of each drawing, in the order to write.
        row_N: Its row in that file.
        format: Type and shape of the drawings.
    """
    write_header(file, format, len(owner_N))
    size = int(np.prod(format.shape)) * np.dtype(format.dtype).itemsize
    at_once = max(1, LATENT_BYTES_AT_ONCE // size)
    for start in range(0, len(owner_N), at_once):
        owners, rows = owner_N[start : start + at_once], row_N[start : start + at_once]
        part = np.empty((len(owners), *format.shape), format.dtype)
        for owner in np.unique(owners):
            mine = owners == owner
            part[mine] = open_latents(folder / names[owner], format)[rows[mine]]
        file.write(part.tobytes())


LATENT_BYTES_AT_ONCE = 2**26
"""Bytes of latents in memory while files are merged."""
