"""Fill the templates that lie next to this file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2

from unigap.report.plots.style import PALETTE


def fill(template: str, **content: Any) -> str:
    """Return a page as HTML that needs no other file and no network.

    Args:
        template: File name of the template.
        content: Its variables; text is escaped.

    Raises:
        jinja2.UndefinedError: The template uses a variable that is not given.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(palette=PALETTE, **content)
