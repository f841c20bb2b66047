"""``unigap compare``: runs side by side, in a table and on an HTML page."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from unigap.console.closing import close
from unigap.console.parser import ClearParser
from unigap.estimate import Estimate
from unigap.report.pages.compare_page import write_comparison
from unigap.report.pages.comparison import Contender, difference, read_contenders, unrecorded
from unigap.report.run_folder.figures import GLANCE, Metric
from unigap.report.run_folder.findings import amount, interval


def print_contenders(runs: Sequence[Contender]) -> None:
    """Print the main figures of each run and their differences to the first run."""
    shown = [metric for metric in GLANCE if any(metric.key in run.after for run in runs)]
    table = Table(title="After training, in % with 95 % intervals; second line: difference to A")
    table.add_column("run")
    for metric in shown:
        table.add_column(metric.name.lower(), justify="right")
    for run in runs:
        table.add_row(run.letter, *(_figure(metric, runs[0], run) for metric in shown), end_section=True)
    console = Console(markup=False)
    console.print(table)
    for line in unrecorded(runs):
        console.print(f"note: {line}", markup=False, highlight=False, soft_wrap=True)
    for run in runs:
        console.print(f"{run.letter}  {run.name}", markup=False, highlight=False, soft_wrap=True)


def _figure(metric: Metric, first: Contender, run: Contender) -> str:
    estimate, against = run.after.get(metric.key), first.after.get(metric.key)
    if estimate is None or not estimate.measured:
        return "not measured"
    lines = [_with_interval(estimate, signed=False)]
    if run is not first and against is not None and against.measured:
        lines.append(_with_interval(difference(metric.key, first, run), signed=True))
    return "\n".join(lines)


def _with_interval(estimate: Estimate, signed: bool) -> str:
    ends = interval(estimate, signed=signed).replace(" to ", ", ")
    return amount(estimate.value, signed=signed) + (f" [{ends}]" if ends else "")


def run(words: Sequence[str]) -> int:
    """Run ``unigap compare RUN RUN... [--out PAGE]``; return the exit status."""
    # not in the table of plain verbs: jsonargparse reads a positional list as one JSON value
    parser = ClearParser(prog="unigap compare", description="Compare runs.", exit_on_error=False, allow_abbrev=False)
    folders = "Run folders of unigap demo or unigap fit; each is compared with the first."
    parser.add_argument("runs", nargs="+", type=str, help=folders)
    parser.add_argument("--out", type=str, default="compare.html", help="The HTML file to write.")
    options = parser.parse_args(list(words[1:]))
    runs = read_contenders(options.runs)
    path = write_comparison(runs, options.out)
    print_contenders(runs)
    close({"comparison": path}, f"open {path} in a browser")
    return 0
