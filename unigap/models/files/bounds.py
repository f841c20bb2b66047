"""Bound the time and memory that a checkpoint folder can claim, before anything in it is built or rendered."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

COUNTS = re.compile(r"(^|_)(layers?|blocks?|depth|levels?)$")
"""Names of config entries that count layers."""
MAX_COUNT = 1000
"""Maximum number of layers, and maximum length of a list, in a config; published models stay far below."""
MAX_SIZE_RATIO = 2
"""Maximum ratio of described to stored numbers; tied weights are counted twice in a network and stored once."""
RENDER_SECONDS, RENDER_BYTES, MAX_CHARACTERS = 1, 2 * 2**30, 10**6
"""Limits for rendering a chat template: CPU seconds, bytes of memory, and characters of the result."""
RENDER_SCRIPT = """
import json, os, resource, sys
from transformers.utils.chat_template_utils import render_jinja_template

given = json.load(sys.stdin)
used = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
seconds = int(used) + 1 + given["seconds"]
resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
if sys.platform == "linux":  # other systems do not enforce it
    pages = int(open("/proc/self/statm").read().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + given["bytes"],) * 2)
code = 0
try:
    rendered, _ = render_jinja_template(given["chats"], chat_template=given["template"], **given["options"])
    code = given["too_much"] * (max(map(len, rendered)) > given["longest"])
except MemoryError:
    code = given["too_much"]
except BaseException:
    pass  # a broken template is reported when it is rendered for use
os._exit(code)
"""
"""Script that renders chats in a separate process within the limits."""
TOO_MUCH = 3


def check_counts(checkpoint: str, config: Mapping[str, Any], file: str = "config.json") -> None:
    """Check that a config describes a network of bounded depth.

    Args:
        checkpoint: The checkpoint, for the message.
        config: The config.
        file: Name of its file, for the message.

    Raises:
        ValueError: An entry exceeds ``MAX_COUNT``; names it.
    """
    for name, value in _entries(config):
        entries = value if isinstance(value, list) else [value]
        if len(entries) > MAX_COUNT:
            raise ValueError(
                f"checkpoint {checkpoint!r}: {name} in {file} is a list of {len(entries)}, and {MAX_COUNT} is the "
                "most that is read; restore it"
            )
        largest = max((number for number in entries if isinstance(number, int)), default=0)
        if COUNTS.search(name) and largest > MAX_COUNT:
            raise ValueError(
                f"checkpoint {checkpoint!r}: {file} asks for {name} = {largest}, more than the {MAX_COUNT} that "
                "are built; restore it"
            )


def check_size(checkpoint: str, described: int, stored: int) -> None:
    """Check that a network is about as large as its stored weights.

    Args:
        checkpoint: The checkpoint, for the message.
        described: Number of parameters of the network that config.json describes.
        stored: Number of parameters in the files.

    Raises:
        ValueError: The network is more than ``MAX_SIZE_RATIO`` times as large.
    """
    if described > MAX_SIZE_RATIO * stored:
        raise ValueError(
            f"checkpoint {checkpoint!r}: most weights are missing: config.json describes {described:,} parameters, and "
            f"the folder holds {stored:,}; restore config.json, or download the folder anew"
        )


def check_chat_template(checkpoint: str, template: str, special_tokens: Mapping[str, Any]) -> None:
    """Check that a chat template terminates and renders a text of normal length.

    A template is a program: it is run in a separate process with limited time and memory.

    Args:
        checkpoint: The checkpoint, for the message.
        template: The template.
        special_tokens: Special tokens by name, which the template may use.

    Raises:
        ValueError: Rendering exceeds a limit.
    """
    tokens = tuple(sorted((name, str(token)) for name, token in special_tokens.items()))
    if not _is_bounded(template, tokens):
        raise ValueError(
            f"checkpoint {checkpoint!r}: its chat template takes more than {RENDER_SECONDS} s or "
            f"{RENDER_BYTES // 2**30} GiB for a short question; restore chat_template.jinja"
        )


@lru_cache(maxsize=64)
def _is_bounded(template: str, special_tokens: tuple[tuple[str, str], ...]) -> bool:
    question = {"type": "text", "text": "Does this image describe a red circle?"}
    task = {
        "template": template,
        "chats": [[{"role": "user", "content": content}] for content in ([question], [{"type": "image"}, question])],
        "options": {**dict(special_tokens), "add_generation_prompt": True},
        "seconds": RENDER_SECONDS,
        "bytes": RENDER_BYTES,
        "longest": MAX_CHARACTERS,
        "too_much": TOO_MUCH,
    }
    # -P: import nothing from the working directory
    command = [sys.executable, "-P", "-c", RENDER_SCRIPT]
    result = subprocess.run(command, input=json.dumps(task).encode(), capture_output=True)
    return result.returncode != TOO_MUCH and result.returncode >= 0


def _entries(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in config.items():
        if isinstance(value, Mapping):
            yield from _entries(value)
        else:
            yield name, value
