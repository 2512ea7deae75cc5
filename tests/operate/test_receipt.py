"""The receipt as a file and on the terminal."""

import json
from dataclasses import replace

import pytest
from rich.console import Console

from operate.receipt import Receipt
from operate.sweep import Found, Sweep

VOLUME = Found(kind="volume", id="vol-1", stack="Lab3Stack", usd_per_hour=0.011, price="a page", command="aws ec2 …")
CLEAN = Receipt(
    run="20261120-093000-lab3", stack="Lab3Stack", region="us-east-1", started="2026-11-20T09:00:00Z",
    ended="2026-11-20T10:30:00Z", usd_per_hour=9.48, estimate_usd=37.92, actual_usd=14.22,
    created=(VOLUME, replace(VOLUME, id="vol-2")),
    sweep=Sweep(region="us-east-1", left=(), standing=(replace(VOLUME, kind="bucket", id="b", why="keeps"),),
                not_looked_at={}),
)  # fmt: skip
LEFT = replace(CLEAN, sweep=replace(CLEAN.sweep, left=(VOLUME,)), refused=("vol-1: no permission",))


def shown(receipt: Receipt) -> list[str]:
    console = Console(width=160)
    with console.capture() as text:
        console.print(receipt.render())
    return [line.rstrip() for line in text.get().rstrip().splitlines()]


def test_a_clean_receipt_ends_in_the_line_that_everyone_waits_for() -> None:
    assert shown(CLEAN)[-1] == "residual $0.00/h"
    assert "stands: bucket b, keeps ($0.0110/h)" in shown(CLEAN)
    assert any("2 volume" in line for line in shown(CLEAN))
    assert CLEAN.exit_code == 0


def test_what_is_left_is_shown_with_its_command_and_what_was_refused() -> None:
    text = "\n".join(shown(LEFT))
    assert "aws ec2 …" in text
    assert "refused: vol-1: no permission" in text
    assert shown(LEFT)[-1] == "residual $0.0110/h"
    assert LEFT.exit_code == 1


def test_the_file_holds_what_programs_need(tmp_path) -> None:
    path = LEFT.write(tmp_path / "results")
    document = json.loads(path.read_text())
    assert path.name == "receipt.json"
    assert list((tmp_path / "results").iterdir()) == [path]
    assert document["residual_usd_per_hour"] == 0.011
    assert document["clean"] is False
    assert document["left"][0]["command"] == "aws ec2 …"
    assert {"schema", "run", "stack", "region", "started", "ended", "estimate_usd", "actual_usd", "created", "standing",
            "not_looked_at", "refused"} <= set(document)  # fmt: skip


def test_unknown_amounts_are_null_in_the_file_and_unknown_on_the_terminal() -> None:
    unseen = replace(CLEAN, estimate_usd=None, sweep=replace(CLEAN.sweep, not_looked_at={"volume": "no permission"}))
    assert unseen.as_json()["residual_usd_per_hour"] is None
    assert unseen.exit_code == 1
    assert "not looked at: volume because no permission" in shown(unseen)
    assert shown(unseen)[-1] == "residual unknown/h"
    assert any("estimate" in line and "unknown" in line for line in shown(unseen))


@pytest.mark.parametrize("receipt", [CLEAN, LEFT])
def test_what_is_written_can_be_json(receipt) -> None:
    assert json.loads(json.dumps(receipt.as_json()))["stack"] == "Lab3Stack"
