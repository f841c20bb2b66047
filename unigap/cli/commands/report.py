"""``unigap report``: the HTML report of a run."""

from __future__ import annotations

from unigap.report.pages.report import write_report


def report(run: str, out: str = "") -> None:
    """Write the HTML report of a run folder.

    Args:
        run: The run folder, with its ``summary.json``.
        out: The HTML file to write. Default: ``report.html`` in the run folder.
    """
    print(f"report: {write_report(run, out)}")
