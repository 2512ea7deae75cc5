"""Rehearsals start, stand side by side, and leave no process whatever became of them."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from rehearsal import control, processes
from rehearsal.control import RehearsalError
from tests.rehearsal.worlds import Lab, World, alive, await_that, processes_with

_QUIET = ">/dev/null 2>&1 </dev/null &"


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[World, World]]:
    """Two rehearsals of one seed, side by side. The tests of this module use them in order, to their end."""
    root = tmp_path_factory.mktemp("pair")
    worlds = World(root, "one", seed=7), World(root, "two", seed=7)
    yield worlds
    control.stop(everything=True, root=root)


def _begin(world: World, folder: Path) -> tuple[Lab, dict[str, Any]]:
    lab = Lab(world, folder)
    lab.open_door()
    (node,) = lab.run()
    return lab, node


def test_one_seed_gives_the_same_ids_and_each_rehearsal_its_own_addresses(
    pair: tuple[World, World], tmp_path: Path
) -> None:
    (first, one), (second, other) = (_begin(world, tmp_path / world.name) for world in pair)
    assert (first.vpc, first.subnet, first.group) == (second.vpc, second.subnet, second.group)
    assert one["InstanceId"] == other["InstanceId"]
    assert one["PublicIpAddress"] != other["PublicIpAddress"]
    for lab, node in ((first, one), (second, other)):
        assert lab.ssh(node, "echo $REHEARSAL_NODE").stdout.strip() == node["InstanceId"]
        home = lab.world.state / "nodes" / node["InstanceId"] / "home"
        assert lab.ssh(node, "pwd").stdout.strip() == str(home)


def test_a_name_that_runs_is_not_started_twice(pair: tuple[World, World]) -> None:
    with pytest.raises(RehearsalError, match=r"'one' is running: .*fab rehearsal.stop --name one"):
        control.start("one", root=pair[0].root)


def test_credentials_of_one_rehearsal_open_no_other(pair: tuple[World, World]) -> None:
    stranger = pair[0].client("ec2", key=pair[1].environment["AWS_ACCESS_KEY_ID"])
    with pytest.raises(ClientError, match="InvalidClientTokenId"):
        stranger.describe_vpcs()


def test_stop_ends_what_a_killed_server_left(pair: tuple[World, World], tmp_path: Path) -> None:
    world = pair[0]
    lab, node = _begin(world, tmp_path / "killed")
    started = f"setsid nohup sleep 81411 {_QUIET}\n(env -i setsid sleep 81412 {_QUIET})"
    assert lab.ssh(node, started).returncode == 0
    script = subprocess.Popen(["sleep", "81413"], env={**os.environ, processes.MARK: str(world.state)})
    server = world.server()
    os.kill(server, signal.SIGKILL)
    said = control.stop(world.name, root=world.root)
    assert said["stopped"] == [world.name]
    assert script.wait() == -signal.SIGKILL
    assert not alive(server)
    assert [n for n in range(3) if processes_with(f"sleep\x008141{n + 1}")] == []
    assert processes.marked(world.state) == set()
    assert sorted(path.name for path in world.state.iterdir()) == ["logs"]
    assert control.status(world.name, root=world.root)["running"] is False


def test_stop_ends_what_is_left_when_the_keeper_was_killed_too(pair: tuple[World, World], tmp_path: Path) -> None:
    world = pair[1]
    lab, node = _begin(world, tmp_path / "killed")
    assert lab.ssh(node, f"setsid nohup sleep 82411 {_QUIET}\n(env -i setsid sleep 82412 {_QUIET})").returncode == 0
    rows = [line.split("\t") for line in (world.state / "processes").read_text().splitlines()]
    recorded = {row[2]: int(row[0]) for row in rows}
    for what in ("keeper", "server", node["InstanceId"]):
        os.kill(recorded[what], signal.SIGKILL)
    control.stop(world.name, root=world.root)
    assert processes_with("sleep\x0082411") == []
    assert not any(alive(pid) for pid in recorded.values())


def test_a_rehearsal_starts_anew_over_what_a_killed_one_left_and_ends_with_its_folder(tmp_path: Path) -> None:
    world = World(tmp_path, "again")
    server = world.server()
    os.kill(server, signal.SIGKILL)
    assert control.status("again", root=tmp_path)["running"] is False
    with pytest.raises(RehearsalError, match=r"not running: start it with `fab rehearsal.start --name again`"):
        control.environment("again", root=tmp_path)
    fresh = World(tmp_path, "again")
    pids = [int(line.split("\t")[0]) for line in (fresh.state / "processes").read_text().splitlines()]
    fresh.state.rename(tmp_path / "moved")
    await_that(lambda: not any(map(alive, pids)))


def test_stopping_nothing_is_no_error(tmp_path: Path) -> None:
    assert control.stop(root=tmp_path) == {"stopped": [], "processes": 0}
    assert control.stop(everything=True, root=tmp_path) == {"stopped": [], "processes": 0}


def test_stop_spares_the_caller_and_those_who_called_it(tmp_path: Path) -> None:
    state = tmp_path / "mine"
    state.mkdir()
    code = f"import pathlib; from rehearsal import control as c; print(c.stop('mine', root=pathlib.Path('{tmp_path}')))"
    script = f'sleep 83411 & {sys.executable} -c "$0"; echo lived'
    said = subprocess.run(
        ["sh", "-c", script, code], env={**os.environ, processes.MARK: str(state)}, cwd=control.CHECKOUT,
        capture_output=True, text=True,
    )  # fmt: skip
    assert said.stdout.splitlines() == ["{'stopped': [], 'processes': 1}", "lived"], said.stderr
    assert processes_with("sleep\x0083411") == []


@pytest.mark.parametrize("name", ["", "../x", "a b", "x" * 41])
def test_a_name_that_is_none_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(RehearsalError, match="write 1 to 40 letters"):
        control.start(name, root=tmp_path)


def test_a_server_that_cannot_start_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "moto").mkdir()
    (tmp_path / "moto" / "__init__.py").write_text("raise OSError('no moto today')")
    with pytest.raises(RehearsalError, match=r"did not start \(OSError: no moto today\): see .*server\.log"):
        control.start("broken", root=tmp_path)
    assert processes.marked(tmp_path / "broken") == set()
