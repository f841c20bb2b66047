"""Turn a matplotlib figure into SVG that stands inside an HTML page.

The SVG follows the page: its colours are the page's CSS custom properties and its text is text in the page's font. It
has an accessible title and description, tooltips, and ids that are unique on the page.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from io import BytesIO
from xml.etree import ElementTree

import matplotlib.style
from matplotlib.figure import Figure

from unigap.report.plots.style import PALETTE

SETTINGS = {"svg.fonttype": "none", "svg.hashsalt": "unigap", "text.parse_math": False, "hatch.linewidth": 1.6}
page_style = matplotlib.style.context(["default", SETTINGS])
NO_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))
UNPRINTABLE = re.compile("[\x00-\x1f\x7f\ud800-\udfff\ufffe\uffff]")
"""Characters that XML does not allow, and line breaks."""
REFERENCE = re.compile(r"(?<=#)[\w-]+(?=\)|$)")
COLOUR = re.compile("|".join(PALETTE.values()))
NAMES = {colour: name for name, colour in PALETTE.items()}
FONT = re.compile(r"font-family: [^;]*;? ?")
DROPPED = ("metadata", "style")  # matplotlib's style sheet would apply to the whole page


def legible(text: str) -> str:
    r"""Return text on one line, without characters that XML does not allow.

    >>> legible("a\nb")
    'a�b'
    """
    return UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", text)


def inline_svg(figure: Figure, name: str, title: str, description: str, tips: Mapping[str, Sequence[str]]) -> str:
    """Return a figure as the markup of an ``<svg>`` element.

    Args:
        figure: A figure whose colours are those of ``PALETTE``, at 72 dpi.
        name: Unique on the page; starts every id.
        title: Accessible title.
        description: Accessible description.
        tips: Tooltips by the gid of their artist: one for each marker of the artist, or one for the whole artist.
    """
    root = _drawn(figure)
    for parent in list(root.iter()):
        for child in [child for child in parent if child.tag in DROPPED]:
            parent.remove(child)
    _add_tips(root, tips)
    _name_ids(root, name)
    for element in root.iter():
        if "style" in element.attrib:
            style = FONT.sub("", element.attrib["style"])
            element.set("style", COLOUR.sub(lambda found: f"var(--{NAMES[found[0]]})", style))
    labels = {"title": title, "desc": description}
    for position, (tag, text) in enumerate(labels.items()):
        root.insert(position, _element(tag, text, id=f"{name}-{tag}"))
    box = root.attrib["viewBox"]
    root.attrib.clear()
    root.attrib |= {"viewBox": box, "role": "img", "aria-labelledby": " ".join(f"{name}-{tag}" for tag in labels)}
    root.set("class", "chart")
    return ElementTree.tostring(root, encoding="unicode")


def _drawn(figure: Figure) -> ElementTree.Element:
    """The figure as an SVG tree without namespaces, which HTML does not need."""
    file = BytesIO()
    with warnings.catch_warnings():
        # the browser has fonts for the scripts that matplotlib's font lacks
        warnings.filterwarnings("ignore", r"Glyph .* missing from font")
        figure.savefig(file, format="svg", metadata=NO_METADATA)
    root = ElementTree.fromstring(file.getvalue())
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        element.text, element.tail = element.text and element.text.strip(), None
        for key in list(element.attrib):
            element.set(key.rpartition("}")[2], element.attrib.pop(key))
    return root


def _add_tips(root: ElementTree.Element, tips: Mapping[str, Sequence[str]]) -> None:
    for group in root.iter("g"):
        texts = tips.get(group.get("id", ""), ())
        marked = list(group.iter("use")) if len(texts) > 1 else [group]
        for element, text in zip(marked if texts else (), texts, strict=True):
            element.insert(0, _element("title", text))


def _name_ids(root: ElementTree.Element, name: str) -> None:
    """Start the ids that are referred to with the name of the chart, and drop all others."""
    ids = {element.get("id") for element in root.iter()}
    values = [value for element in root.iter() for value in element.attrib.values()]
    used = {found for value in values for found in REFERENCE.findall(value)} & ids
    for element in root.iter():
        own = element.attrib.pop("id", None)
        for key, value in element.attrib.items():
            element.set(key, REFERENCE.sub(lambda found: f"{name}-{found[0]}" if found[0] in used else found[0], value))
        if own in used:
            element.set("id", f"{name}-{own}")


def _element(tag: str, text: str, **attributes: str) -> ElementTree.Element:
    element = ElementTree.Element(tag, attributes)
    element.text = legible(text)
    return element
