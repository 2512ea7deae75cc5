"""How a verb ends that was about a run: the report, where it lies, and an exit code that tells the truth."""

import json as documents

from operate.execution import verdict
from operate.report import summary, write_report
from operate.runs import Run
from operate.screen import Screen


def show_run(
    run: Run, screen: Screen, *, json: bool, report: bool = True, expected: tuple[int | None, ...] = (0,)
) -> None:
    """Write report.html, print the table and its path (with `json`: run.json alone, on stdout).

    `expected`: exit codes that are no failure here, as 143 is none to who stopped the run.

    Raises:
        Problem: a workload failed or a node was lost; raised last, when all is shown.
    """
    page = write_report(run.folder) if report else None
    if json:
        print(documents.dumps({**run.document, "folder": str(run.folder)}, indent=1))
    else:
        if report:
            screen.console.print(summary(run.folder))
        usd = run.document["usd"]
        price = "" if usd is None else f", ${usd:.2f}"
        screen.note(f"{page or run.folder}{price}")
    codes = {code for item in run.document["workloads"] for code in item["exit"].values()}
    problem = verdict(run)
    if problem and not (codes <= set(expected) and not run.document.get("lost")):
        raise problem
