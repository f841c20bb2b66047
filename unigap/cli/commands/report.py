"""``unigap report``: the HTML report of a run."""

from __future__ import annotations

from unigap.console.closing import close
from unigap.report.pages.report import write_report
from unigap.report.run_folder.fit_folder import check_measured


def report(run: str, out: str = "") -> None:
    """Write the HTML report of a run folder.

    Args:
        run: The run folder, with its ``summary.json``.
        out: The HTML file to write. Default: ``report.html`` in the run folder.
    """
    check_measured(run)
    page = write_report(run, out)
    close({"report": page}, f"open {page} in a browser")
