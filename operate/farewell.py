"""The last verb of a lab: bring its results home, end it, write the receipt."""

import json as documents
import shutil
from datetime import datetime
from pathlib import Path

from labs.catalog import Lab
from labs.names import Output
from operate import admission, crowd, execution, laptop
from operate.account import Account
from operate.bill import Frozen, kept_cost
from operate.choice import open_run
from operate.problem import Problem
from operate.receipt import Receipt
from operate.report import write_report
from operate.runs import NoRun, Run, find_run
from operate.screen import Screen
from operate.stack import destroy_command, find_stack, last_life
from operate.sweep import Sweep
from operate.teardown import teardown


def end_lab(account: Account, lab: Lab, screen: Screen, *, json: bool) -> None:
    """Stop what runs, fetch it, end the lab of `lab` and print the receipt, which lies with the newest run.

    Raises:
        Problem: something is left, or could not be looked at; Ctrl-C: the guard ends the lab at its deadline.
    """
    receipt, path = part_with(account, lab, screen)
    if json:
        print(documents.dumps(receipt.as_json(), indent=1))
    elif path is None:
        screen.note(f"there is no {lab.stack} and nothing of it: nothing was torn down")
    else:
        screen.console.print(receipt.render())
        screen.note(str(path))
    leftover(receipt.sweep, lab.stack)


def part_with(account: Account, lab: Lab, screen: Screen) -> tuple[Receipt, Path | None]:
    """Stop what runs, fetch it, end the lab; returns the receipt and where it lies, None where there was no lab.

    Raises:
        Problem: Ctrl-C: the guard ends the lab at its deadline.
    """
    stack = find_stack(account, lab.stack)
    before = None if stack else last_life(account, lab.stack)
    born = stack.created if stack else before.created if before else None
    run = _newest(account, lab.stack)
    if run and born and datetime.fromisoformat(run.document["started"]) < born:
        run = None  # of an earlier life of this lab
    frozen = _frozen(account, lab.stack, stack.id if stack else before.id if before else "", run)
    if run is not None and run.document["ended"] is None:
        run = _bring_home(run, screen)
    if stack and (group := stack.outputs.get(Output.SECURITY_GROUP)):
        admission.withdraw(account, group)
    with screen.stage(f"ending {lab.stack}", interrupted="fab teardown goes on where it was; so does the guard") as say:
        receipt = teardown(
            account,
            lab.stack,
            run=run.name if run else "",
            frozen=frozen,
            progress=lambda made, elapsed: say("; ".join(crowd.steps(made.did))) if made.did else None,
        )
    if not (run or receipt.started or receipt.created):
        return receipt, None
    folder = run.folder if run else laptop.results() / lab.stack
    told_before = not receipt.created and _started(folder) == receipt.started
    path = folder / "receipt.json" if told_before else receipt.write(folder)
    if run:
        write_report(run.folder)  # which ends in the receipt
    if receipt.exit_code == 0:  # the addresses and host keys of nodes that are gone, and their price
        shutil.rmtree(laptop.state(lab.stack, account.endpoint))
    return receipt, path


def _frozen(account: Account, stack: str, life: str, run: Run | None) -> Frozen | None:
    """The price of the life that ends, as this machine or the run that was fetched here has kept it."""
    kept = kept_cost(account, stack, life) if life else None
    return kept or (run.document.get("cost") if run else None)


def _started(folder: Path) -> str | None:
    """Of which life the receipt is that lies in a folder; None where none does, or it cannot be read."""
    try:
        return str(documents.loads((folder / "receipt.json").read_text())["started"])
    except (FileNotFoundError, KeyError, ValueError):
        return None


def leftover(sweep: Sweep, stack: str = "") -> None:
    """Nothing, if nothing is left.

    Raises:
        Problem: something bills or blocks, or could not be looked at.
    """
    if sweep.clean:
        return
    what = stack or "labs"
    stacks = sorted({item.stack for item in sweep.left if item.stack})
    remedy = f"end it: {', '.join(map(destroy_command, stacks))}; fab audit names a command for each"
    if not sweep.left:
        missed = ", ".join(sweep.not_looked_at) or "a price"
        raise Problem(
            f"whether anything of {what} is left cannot be told ({missed})", "fab audit says what was refused"
        )
    price = sweep.residual_usd_per_hour
    bill = "at a price that is not known" if price is None else f"at ${price:.4f} per hour"
    raise Problem(f"{len(sweep.left)} things of {what} are there, {bill}", remedy)


def _newest(account: Account, stack: str) -> Run | None:
    try:
        return find_run(stack=stack, endpoint=account.endpoint or "")
    except NoRun:
        return None


def _bring_home(run: Run, screen: Screen) -> Run:
    screen.note(f"{run.name} has not ended: stopping it and fetching what there is")
    try:
        with open_run(run, screen) as cluster:
            return execution.stop(cluster, run, screen)
    except Problem as problem:
        if problem.exit_code == 130:
            raise
        screen.warn(f"{run.name} was not fetched: {problem.cause}; what it shipped stays in the bucket")
        return run
