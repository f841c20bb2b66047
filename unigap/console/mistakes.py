"""Errors as one line that says what, where and what to do."""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Iterable

ATTEMPTS = (
    "Does not validate against any of the Union subtypes",
    "Subtypes:",
    "Errors:",
    "Expected a <class 'NoneType'>",
    "Expected a <class 'bool'>",
    "Expected a <class 'collections.abc.Iterable'>",
    "Expected a path but",
    "Given value type:",
    "Given value: {",
    "Given value: Namespace(",
    "Given value: [Namespace(",
    "Subclass types expect one of",
    "a class path (str)",
    "a dict with",
    "Given value: NestedArg(",
)
"""Starts of the lines in which jsonargparse lists the types it tried; the other lines hold the actual error."""
HINTED = re.compile("did you mean|choose one of|--help lists")
MISSING = re.compile(r"module '(?P<module>[\w.]+)' has no attribute '(?P<name>\w+)'")
NO_PATH = re.compile(r"Expected a dot import path string: (?P<name>\w+)")
PLAIN = {
    # torch's own remedy is to run what is in the file
    r"Weights only load failed.*": "a file holds more than tensors and plain values; nothing in it was run",
    r"Problem with given class_path '[\w.]*\.(\w+)': ": r"\1: ",
    r"Exceeds the limit \(4300 digits\) for integer string conversion.*": "more than 4300 digits; shorten it",
    r"Expected a <class '(\w+)'>\. Got value: ": r"must be of type \1, got ",
    r"Type collections\.abc\.Callable\[.*?\] expects a function or a callable class: ": "",
    r"No module named 'bitsandbytes'": "bitsandbytes is not installed; pip install 'unigap[quantized]'",
}
LONGEST, MOST_CHOICES = 400, 20

LOST = ("gloo", "NCCL", "Connection closed by peer", "Connection reset by peer")
"""Parts of torch's messages when a collective cannot reach a process."""


def one_line(error: BaseException) -> str:
    """Return an error as one line of at most ``LONGEST`` characters, with a hint if a name is unknown."""
    lines = [line.strip().removeprefix("- ") for line in str(error).splitlines()]
    kept = [line for line in lines if line and not line.startswith(ATTEMPTS)]
    if len(kept) == 1 and kept[0].endswith(":"):  # only a heading is left: the error is in the lines of attempts
        kept = [line for line in lines if line]
    text = " ".join(line if line.endswith((":", ";")) else f"{line};" for line in kept).rstrip(";:")
    text = text or type(error).__name__
    for wordy, plain in PLAIN.items():
        text = re.sub(wordy, plain, text)
    if not HINTED.search(text):
        text += _hint_of_class(text)
    return shortened(text, LONGEST)


def shortened(text: str, most: int = 200) -> str:
    """Return text as one line, cut after a sentence or a word if it is too long.

    Args:
        text: The text.
        most: Maximum number of characters.

    >>> shortened("No connection. Check the network and try again.", 30), shortened("one two three", 9)
    ('No connection.', 'one ...')
    """
    line = " ".join(text.split())
    if len(line) <= most:
        return line
    sentence = line.rfind(". ", most // 3, most)
    return line[: sentence + 1] if sentence > 0 else f"{line[: most - 3].rpartition(' ')[0] or line[: most - 4]} ..."


def hint(name: str, known: Iterable[str]) -> str:
    """Return a hint for an unknown name, to append to an error message.

    >>> hint("colour", ["color", "shape"]), hint("x", ["color", "shape"])
    ("; did you mean 'color'?", '; choose one of: color, shape')
    """
    names = sorted(set(known))
    near = difflib.get_close_matches(name, names, 1)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; choose one of: {', '.join(names)}" if 0 < len(names) <= MOST_CHOICES else "; --help lists what there is"


def _hint_of_class(text: str) -> str:
    """Return a hint for a wrong import path, from the loaded modules; empty if the text names none."""
    missing = MISSING.search(text)
    if missing and missing["module"] in sys.modules:
        module = sys.modules[missing["module"]]
        return hint(missing["name"], (name for name in vars(module) if not name.startswith("_")))
    bare = NO_PATH.search(text)
    if bare is None:
        return ""
    modules = [module for name, module in sys.modules.items() if name.startswith(("unigap.", "lightning.pytorch."))]
    classes = {name for module in modules for name, value in vars(module).items() if isinstance(value, type)}
    near = difflib.get_close_matches(bare["name"], classes, 1)
    return f"; did you mean {near[0]!r}?" if near else "; give its import path, e.g. unigap.judges.SelfJudge"


def is_lost_process(error: Exception) -> bool:
    """Whether a collective failed because another process of the run ended."""
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in LOST)
