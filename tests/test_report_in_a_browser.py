"""The report in a real headless browser, on a phone and a desk, by day and by night."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import CHROMIUM, Browser
from test_report import make_run

from unigap.report.pages.compare_page import write_comparison
from unigap.report.pages.comparison import read_contenders
from unigap.report.pages.report import write_report

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
PHONE, DESK = 390, 1280
FAINT = """
(() => {
  const numbers = colour => colour.match(/[\\d.]+/g).map(Number);
  const light = colour => {
    const linear = c => c <= 0.04 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
    const parts = numbers(colour).slice(0, 3).map(c => linear(c / 255));
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
  };
  const behind = element => {
    for (; element; element = element.parentElement) {
      const colour = getComputedStyle(element).backgroundColor;
      if (numbers(colour).length < 4 || numbers(colour)[3] > 0) return colour;
    }
    return 'rgb(255, 255, 255)';
  };
  const texts = [...document.body.querySelectorAll('*')].filter(
    e => [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()) && !e.closest('title, desc'));
  return texts.map(e => {
    const style = getComputedStyle(e);
    const ink = light(e.closest('svg') ? style.fill : style.color), paper = light(behind(e));
    return [(Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05), e.textContent.trim().slice(0, 40)];
  }).filter(([contrast]) => contrast < 4.5);
})()
"""
"""Texts whose contrast with what lies behind them is below the 4.5 that WCAG asks for."""
OUTSIDE = """
[...document.querySelectorAll('svg text, img, table, pre, h1, h2, h3, p')].filter(e => {
  const box = e.getBoundingClientRect();
  return box.width && (box.left < -0.5 || box.right > innerWidth + 0.5) && getComputedStyle(e).clipPath === 'none';
}).map(e => e.textContent.trim().slice(0, 40))
"""
"""What reaches beyond the sides of the window."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(make_run(tmp_path_factory.mktemp("browser") / "run"))


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [PHONE, DESK])
def test_the_page_is_whole_readable_and_silent(browser: Browser, page: Path, width: int, dark: bool) -> None:
    browser.open(page, width, dark)
    assert browser.trouble() == []
    assert browser.evaluate("innerWidth") == width
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    assert browser.evaluate(OUTSIDE) == []
    assert browser.evaluate(FAINT) == []
    paper = browser.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
    assert (sum(paper) < 3 * 64) is dark
    images = browser.evaluate("[...document.images].map(i => [i.complete && i.naturalWidth > 0, i.alt.length])")
    assert len(images) == 14 and all(shown and described for shown, described in images)


@pytest.mark.parametrize(("width", "dark"), [(PHONE, True), (DESK, False)])
def test_so_is_the_page_that_compares(browser: Browser, page: Path, width: int, dark: bool) -> None:
    runs = read_contenders([str(page.parent), str(make_run(page.parent / f"other-{width}"))])
    browser.open(write_comparison(runs, str(page.parent / "compare.html")), width, dark)
    assert browser.trouble() == []
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    assert browser.evaluate(OUTSIDE) == []
    assert browser.evaluate(FAINT) == []
    assert browser.evaluate("document.querySelectorAll('svg').length") == 5


def test_trouble_would_be_noticed(browser: Browser, tmp_path: Path) -> None:
    (tmp_path / "bad.html").write_text("<img src='http://127.0.0.1:9/x.png'><script>console.error('no')</script>")
    browser.open(tmp_path / "bad.html", DESK, dark=False)
    assert any("127.0.0.1:9" in said for said in browser.trouble())
    assert any('"no"' in said for said in browser.trouble())
