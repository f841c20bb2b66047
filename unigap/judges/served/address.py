"""Address of a server, and the key it wants: both as the user configured them, the key by the name of a variable."""

from __future__ import annotations

import ipaddress
import os
import re
import sys
from functools import lru_cache
from urllib.parse import urlsplit

VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*")
"""Form of the name of an environment variable; keys have small letters or hyphens, so none is taken for a name."""
LOCAL_NAMES = ("localhost", ".localhost", ".local", ".internal", ".lan", ".home.arpa")


def check_url(url: str) -> str:
    """Return the base URL of a server without a slash at the end.

    Raises:
        ValueError: It is no http or https URL, or it holds a password, a query or a fragment, which may be a key.
    """
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        valid = False
    if not valid:
        raise ValueError("url must be the base URL of a server, such as http://localhost:8000/v1")
    if "@" in parts.netloc or parts.query or parts.fragment:
        # the URL is not repeated: what is too much in it may be a key
        raise ValueError(
            f"url: leave out everything but http://HOST:PORT/PATH of {parts.hostname!r}; a key goes into an "
            "environment variable, and its name into key_variable"
        )
    if parts.scheme == "http" and not is_private(str(parts.hostname)):
        _warn_unencrypted(str(parts.hostname))
    return url.rstrip("/")


def is_private(host: str) -> bool:
    """Whether a host is this machine or one of a private network: by its address, its domain, or a bare name."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return "." not in host or host.endswith(LOCAL_NAMES)
    return address.is_loopback or address.is_private or address.is_link_local


@lru_cache
def _warn_unencrypted(host: str) -> None:
    """Print the warning once for each host."""
    print(
        f"warning: images and key go to {host!r} unencrypted; use https for a server outside your own network",
        file=sys.stderr,
    )


def check_key_variable(variable: str) -> None:
    """Check that the environment holds the key; an empty name means that the server wants none.

    Raises:
        ValueError: It is no name of a variable (and not repeated, since it may be a key), or the variable is not set.
    """
    if not variable:
        return
    if not VARIABLE.fullmatch(variable):
        raise ValueError(
            "key_variable must be the NAME of an environment variable in capital letters, such as OPENAI_API_KEY, "
            "never the key itself"
        )
    if not os.environ.get(variable):
        raise ValueError(f"key_variable: the environment variable {variable} is not set; export it")
    key = os.environ[variable]
    if not (key.isascii() and key.isprintable() and key == key.strip()):
        raise ValueError(f"key_variable: {variable} holds spaces or line breaks around the key; export it without them")


def headers(variable: str) -> dict[str, str]:
    """Return the headers of a request; the key is read from the environment each time and kept nowhere."""
    return {"Authorization": f"Bearer {os.environ[variable]}"} if variable else {}


def without_key(text: str, variable: str) -> str:
    """Return a server's message with the key blotted out, should it repeat it."""
    key = os.environ.get(variable, "") if variable else ""
    return text.replace(key, "***") if key else text
