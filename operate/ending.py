"""How a verb ends that was about a run: what came out, where it lies, and an exit code that tells the truth."""

import json as documents

from operate.problem import Problem
from operate.report import as_json, ask, outcome, summary, write_report
from operate.runs import Run
from operate.screen import Screen
from operate.verdict import verdict


def show_outcome(
    run: Run, screen: Screen, *, json: bool, report: bool = True, expected: tuple[int | None, ...] = (0,)
) -> None:
    """Write report.html, print the verdict and where it lies (with `json`: run.json alone, on stdout).

    `expected`: exit codes that are no failure here, as 143 is none to who stopped the run.

    Raises:
        Problem: a workload failed or a node was lost; raised last, when all is shown.
    """
    page = write_report(run.folder) if report else None
    if json:
        print(documents.dumps({**run.document, "folder": str(run.folder)}, indent=1))
    else:
        if report:
            screen.console.print(outcome(run.folder))
        screen.note(str(page or run.folder))
    codes = {code for item in run.document["workloads"] for code in item["exit"].values()}
    problem = verdict(run)
    if problem and not (codes <= set(expected) and not run.document.get("lost")):
        raise problem


def show_report(run: Run, screen: Screen, *, json: bool, quiz: bool = False) -> None:
    """Write report.html anew, print the table of the headline numbers (with `json`: everything that the report knows).

    With `quiz`, ask for those numbers first, and write quiz.html, a page that does the same.

    Raises:
        Problem: a workload failed or a node was lost; raised last, when all is shown.
    """
    if quiz and json:
        raise Problem("--quiz asks on this terminal, and --json leaves it to one document", "leave out one of them")
    page = write_report(run.folder, quiz=quiz)
    if quiz:
        ask(run.folder, input, screen.note)
        screen.note(str(page))
    elif json:
        print(documents.dumps(as_json(run.folder), indent=1))
    else:
        screen.console.print(summary(run.folder))
        screen.note(str(page))
    if problem := verdict(run):
        raise problem
