"""What a checkpoint folder may ask for: bounded time and memory before anything in it is built or rendered."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

COUNTS = re.compile(r"(^|_)(layers?|blocks?|depth|levels?)$")
"""Names of config entries that say how often something is built."""
MOST_BUILT = 1000
"""No published model has so many layers; a list of a config is not longer either."""
SLACK = 2
"""Weights may stand twice in a network and once in its file, where two parts share them."""
TRIAL_SECONDS, TRIAL_BYTES, LONGEST_CHAT = 1, 2 * 2**30, 10**6
"""CPU seconds, bytes of memory and characters that chats may take."""
TRIAL = """
import json, os, resource, sys
from transformers.utils.chat_template_utils import render_jinja_template

given = json.load(sys.stdin)
used = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
seconds = int(used) + 1 + given["seconds"]
resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
if sys.platform == "linux":  # elsewhere the system does not keep to it
    pages = int(open("/proc/self/statm").read().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + given["bytes"],) * 2)
code = 0
try:
    rendered, _ = render_jinja_template(given["chats"], chat_template=given["template"], **given["options"])
    code = given["too_much"] * (max(map(len, rendered)) > given["longest"])
except MemoryError:
    code = given["too_much"]
except BaseException:
    pass  # what is wrong shows when it is rendered for use
os._exit(code)
"""
"""Renders chats in a process of its own, within bounds."""
TOO_MUCH = 3


def check_counts(checkpoint: str, config: Mapping[str, Any]) -> None:
    """Make sure that building a network from a config ends.

    Raises:
        ValueError: An entry asks for more than ``MOST_BUILT`` layers or the like; names it.
    """
    for name, value in _entries(config):
        listed = value if isinstance(value, list) else [value]
        if len(listed) > MOST_BUILT:
            raise ValueError(
                f"checkpoint {checkpoint!r}: {name} in config.json is a list of {len(listed)}, and {MOST_BUILT} is the "
                "most that is read; restore it"
            )
        most = max((number for number in listed if isinstance(number, int)), default=0)
        if COUNTS.search(name) and most > MOST_BUILT:
            raise ValueError(
                f"checkpoint {checkpoint!r}: config.json asks for {name} = {most}, more than the {MOST_BUILT} that are "
                "built; restore it"
            )


def check_size(checkpoint: str, asked: int, stored: int) -> None:
    """Make sure that a network is about as large as the weights it is to be filled with.

    Args:
        checkpoint: What is loaded.
        asked: Numbers in the network that its config describes.
        stored: Numbers in its files.

    Raises:
        ValueError: It is more than ``SLACK`` times as large.
    """
    if asked > SLACK * stored:
        raise ValueError(
            f"checkpoint {checkpoint!r}: most weights are missing: config.json asks for {asked:,} numbers, and the "
            f"folder holds {stored:,}; restore config.json, or download the folder anew"
        )


def check_chat_template(checkpoint: str, template: str, special_tokens: Mapping[str, Any]) -> None:
    """Make sure that a chat template comes to an end and gives a text of usual length, on chats as they are asked here.

    A template is a program. It is tried in a process of its own, whose time and memory the system bounds.

    Args:
        checkpoint: Where it is from.
        template: The template.
        special_tokens: Names and texts that it may use.

    Raises:
        ValueError: It does not.
    """
    words = tuple(sorted((name, str(word)) for name, word in special_tokens.items()))
    if not _is_bounded(template, words):
        raise ValueError(
            f"checkpoint {checkpoint!r}: its chat template takes more than {TRIAL_SECONDS} s or "
            f"{TRIAL_BYTES // 2**30} GiB for a short question; restore chat_template.jinja"
        )


@lru_cache(maxsize=64)
def _is_bounded(template: str, special_tokens: tuple[tuple[str, str], ...]) -> bool:
    words = {"type": "text", "text": "Does this image describe a red circle?"}
    given = {
        "template": template,
        "chats": [[{"role": "user", "content": content}] for content in ([words], [{"type": "image"}, words])],
        "options": {**dict(special_tokens), "add_generation_prompt": True},
        "seconds": TRIAL_SECONDS,
        "bytes": TRIAL_BYTES,
        "longest": LONGEST_CHAT,
        "too_much": TOO_MUCH,
    }
    # -P: nothing in the working directory is imported
    tried = subprocess.run([sys.executable, "-P", "-c", TRIAL], input=json.dumps(given).encode(), capture_output=True)
    return tried.returncode != TOO_MUCH and tried.returncode >= 0


def _entries(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in config.items():
        if isinstance(value, Mapping):
            yield from _entries(value)
        else:
            yield name, value
