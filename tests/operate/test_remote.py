"""Shells over SSH: pinned keys, clear failures, and no wait without an end."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import types
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import paramiko
import pytest

from operate.cluster import Cluster
from operate.nodes import Node
from operate.problem import Problem
from operate.remote import RemoteShell
from operate.screen import Screen
from operate.shell import Outcome, Unreachable, demand, failures
from tests.operate.conftest import Machine, shells_to

ROOT = Path(__file__).parents[2]


def test_a_command_gives_its_code_and_both_streams_and_takes_stdin(machines, cluster_of):
    shell = cluster_of(machines(1)).shells.shells["node0"]
    data = bytes(range(256)) * 4096
    outcome = shell.run("cat; echo oops >&2; exit 7", stdin=data)
    assert (outcome.code, outcome.stdout, outcome.stderr) == (7, data, b"oops\n")
    assert outcome.said == "oops"


def test_commands_run_in_the_nodes_home_whatever_the_login_shell_quotes(machines, cluster_of):
    (machine,) = machines(1)
    shell = cluster_of([machine]).shells.shells["node0"]
    assert shell.run("pwd; echo \"it's 'fine'\"").text == f"{machine.home}\nit's 'fine'"


def test_nagle_is_off(machines, cluster_of):
    shell = cluster_of(machines(1)).shells.shells["node0"]
    shell.run("true")
    line = shell._connection.transport.sock
    assert line.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0


def test_a_host_key_that_is_not_the_pinned_one_is_refused(machines, key):
    first, second = machines(2)
    with pytest.raises(Problem, match="shows another host key than the one pinned") as caught:
        RemoteShell.to_node(first.node, host_keys=[second.host_key], key=key).run("true")
    assert not isinstance(caught.value, Unreachable), "trying again would be wrong"


def test_a_host_that_nobody_pinned_is_refused(machines, key):
    (machine,) = machines(1)
    with pytest.raises(Problem, match=rf"not in your known_hosts.*ssh-keyscan -p {machine.node.port} 127.0.0.1"):
        RemoteShell.to_node(machine.node, host_keys=[], key=key).run("true")


def test_a_key_that_the_node_does_not_know_is_told_at_once_and_every_time(machines, tmp_path):
    (machine,) = machines(1)
    stranger = tmp_path / "stranger"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(stranger)], check=True)
    told = (
        f"node0 (127.0.0.1 port {machine.node.port}) refuses the key {stranger}: "
        "the lab was deployed with another one: deploy it again from here, or put that key in its place"
    )
    with shells_to([machine], stranger) as shells:
        for _ in range(2):
            result = shells.each("true")["node0"]
            assert isinstance(result, Problem)
            assert not isinstance(result, Unreachable), "trying again would be in vain"
            assert str(result) == told
    assert "dispatch_protocol_error" not in (machine.folder / "log").read_text()


def test_a_lab_whose_key_is_another_is_not_waited_for(machines, key, tmp_path):
    """Whatever the other nodes do: the node that refuses the key is what is told."""
    stranger, down = machines(2)
    shutil.copy(stranger.folder / "host_key.pub", stranger.folder / "authorized_keys")
    down.stop()
    shells = shells_to([stranger, down], key)
    nodes = (stranger.node, replace(down.node, launched=datetime.now(UTC)))
    with (
        Cluster(label="Lab3Stack", target="stack", nodes=nodes, shells=shells) as cluster,
        pytest.raises(Problem) as caught,
    ):
        cluster.facts(Screen(), sleep=lambda _: pytest.fail("waited"))
    assert str(caught.value) == (
        f"node0 could not answer (node0 (127.0.0.1 port {stranger.node.port}) refuses the key {key}): "
        "the lab was deployed with another one: deploy it again from here, or put that key in its place"
    )


def test_a_line_that_breaks_while_the_key_is_looked_at_is_no_refusal(machines, key, monkeypatch):
    monkeypatch.setattr("operate.remote._PAUSES_S", (0, 0))

    def broken(self, *_, **__):
        self.transport.close()
        raise paramiko.AuthenticationException("Authentication failed: transport shut down or saw EOF")

    monkeypatch.setattr(paramiko.auth_handler.AuthHandler, "wait_for_response", broken)
    with shells_to(machines(1), key) as shells:
        result = shells.each("true")["node0"]
    assert isinstance(result, Unreachable)
    assert "drops connections (Authentication failed: transport shut down or saw EOF)" in result.cause


def test_a_node_that_does_not_answer_is_waited_for_a_minute_while_young_and_less_later(machines, key, monkeypatch):
    (machine,) = machines(1)
    machine.stop()
    now = [1000.0]
    monkeypatch.setattr("operate.cluster.time", types.SimpleNamespace(monotonic=lambda: now[0], sleep=None))
    for age_s, limit_s in ((1, 60), (299, 60), (301, 20)):
        node = replace(machine.node, launched=datetime.now(UTC) - timedelta(seconds=age_s))
        began = now[0]
        with (
            Cluster(label="Lab3Stack", target="stack", nodes=(node,), shells=shells_to([machine], key)) as cluster,
            pytest.raises(Problem, match=r"node0 could not answer .*Connection refused"),
        ):
            cluster.facts(Screen(), sleep=lambda seconds: now.__setitem__(0, now[0] + seconds))
        assert limit_s <= now[0] - began < limit_s + 4


def test_a_machine_that_refuses_connections_is_unreachable(key):
    node = Node(name="node0", address="127.0.0.1", port=1)
    with pytest.raises(Unreachable, match=r"node0 \(127.0.0.1 port 1\) does not answer \(Connection refused\)"):
        RemoteShell.to_node(node, host_keys=[], key=key).run("true")


def test_a_command_that_hangs_ends_at_its_limit(machines, cluster_of):
    shell = cluster_of(machines(1)).shells.shells["node0"]
    shell.run("true")
    with pytest.raises(Unreachable, match="a command took over 1 s"):
        shell.run("sleep 5000", timeout_s=1)


def test_a_dropped_connection_is_told_and_the_next_command_connects_anew(machines, cluster_of):
    (machine,) = machines(1)
    shell = cluster_of([machine]).shells.shells["node0"]
    assert shell.run("echo 1").text == "1"
    stream = shell.stream("echo begun; sleep 60", idle_s=500)
    assert next(stream) == b"begun\n"
    machine.cut()
    with pytest.raises(Unreachable, match="lost its connection"):
        list(stream)
    assert shell.run("echo 2").text == "2"


def test_a_stream_that_falls_silent_is_taken_for_dead(machines, cluster_of):
    shell = cluster_of(machines(1)).shells.shells["node0"]
    with pytest.raises(Unreachable, match="silent for 1 s"):
        list(shell.stream("sleep 60", idle_s=1))


def test_one_node_that_fails_does_not_keep_the_others_from_answering(machines, cluster_of):
    up, down, odd = machines(3)
    down.stop()
    results = cluster_of([up, down, odd]).shells.each(lambda name: "exit 4" if name == "node2" else "echo well")
    assert isinstance(results["node0"], Outcome)
    assert results["node0"].text == "well"
    assert set(failures(results)) == {"node1", "node2"}
    with pytest.raises(Problem) as caught:
        demand(results, "do it", "look")
    assert caught.value.cause == "2 nodes could not do it (node1, node2)"
    gone, failed = caught.value.details
    assert gone.startswith("node1 (127.0.0.1 port")
    assert failed == "node2: exit code 4: no output"
    assert caught.value.remedy == "look"


def test_commands_on_several_nodes_run_at_the_same_time(machines, cluster_of, tmp_path):
    """Each waits until all have begun."""
    began = f"{tmp_path}/began"
    every = f"echo x >> {began}; until [ $(wc -l < {began}) = 4 ]; do sleep 0.05; done; echo all"
    results = cluster_of(machines(4)).shells.each(every)
    assert [outcome.text for outcome in demand(results, "wait", "").values()] == ["all"] * 4


def fab(words: list[str], connect_s: float) -> list[str]:
    """The command that is `fab` with these words, where a handshake may take so long."""
    patient = f"import operate.way as way; way.CONNECT_S = {connect_s}"
    return [sys.executable, "-c", f"import sys; sys.argv = {['fab', *words]!r}; {patient}; "
            "from fabric.main import program; program.run()"]  # fmt: skip


def test_ctrl_c_while_connecting_ends_at_once(tmp_path):
    """Also where several machines that accept connections but say nothing are waited for: here for hours."""
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
        hosts = ",".join(f"me@127.0.0.1:{line.getsockname()[1]}" for line in (one, two))
        verb = subprocess.Popen(
            fab(["run", "--hosts", hosts, "--", "true"], 9999.0),
            cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
            env={**os.environ, "HOME": str(tmp_path)},
        )  # fmt: skip
        try:
            with one.accept()[0], two.accept()[0]:
                verb.send_signal(signal.SIGINT)
                _, said = verb.communicate()
        finally:
            verb.kill()
    assert (verb.returncode, said) == (
        130, "problem: interrupted while waiting for the nodes: run the same command again\n",
    )  # fmt: skip


def flapping(key: Path, machine: Machine, drops: int) -> tuple[RemoteShell, socket.socket, list[int]]:
    """A shell to `machine` by a door that drops so many connections before it lets one through."""
    door = socket.create_server(("127.0.0.1", 0))
    tried: list[int] = []

    def serve() -> None:
        while True:
            try:
                line, _ = door.accept()
            except OSError:
                return
            tried.append(1)
            with line, suppress(OSError):  # either side may hang up first
                if len(tried) > drops:
                    pump(line, machine.node.port)

    threading.Thread(target=serve, daemon=True).start()
    node = replace(machine.node, port=door.getsockname()[1])
    return RemoteShell.to_node(node, host_keys=[machine.host_key], key=key), door, tried


def pump(line: socket.socket, port: int) -> None:
    with socket.create_connection(("127.0.0.1", port)) as there:

        def back() -> None:
            with suppress(OSError):
                while data := there.recv(65536):
                    line.sendall(data)

        threading.Thread(target=back, daemon=True).start()
        while data := line.recv(65536):
            there.sendall(data)


def test_a_node_whose_sshd_drops_the_first_connections_is_tried_again(machines, key, monkeypatch):
    monkeypatch.setattr("operate.remote._PAUSES_S", (0, 0))
    (machine,) = machines(1)
    shell, door, tried = flapping(key, machine, 2)
    with door:
        assert shell.run("echo up").text == "up"
        assert len(tried) == 3
        shell.close()


def test_a_node_whose_sshd_drops_every_connection_is_told_in_one_line(machines, key, monkeypatch):
    monkeypatch.setattr("operate.remote._PAUSES_S", (0, 0))
    (machine,) = machines(1)
    shell, door, tried = flapping(key, machine, 99)
    with door:
        told = r"^node0 \(127.0.0.1 port \d+\) drops connections \(.*tried 3 times\): is it still booting\? try again$"
        with pytest.raises(Unreachable, match=told):
            shell.run("true")
    assert len(tried) == 3


def test_a_machine_that_says_nothing_is_one_line_and_no_traceback(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as door:
        words = ["run", "--hosts", f"me@127.0.0.1:{door.getsockname()[1]}", "--wait", "0", "--", "true"]
        done = subprocess.run(fab(words, 1.0), cwd=ROOT, capture_output=True, text=True, check=False,
                              env={**os.environ, "HOME": str(tmp_path)})  # fmt: skip
        where = f"127.0.0.1 port {door.getsockname()[1]}"
    assert done.stderr == (
        f"problem: node0 could not answer (node0 ({where}) accepts connections and says nothing): "
        "is it still booting? try again\n"
    )


def test_a_host_keeps_its_name_where_ssh_config_names_known_hosts_files(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "config").write_text("Host *\n    UserKnownHostsFile ~/.ssh/known_hosts ~/.ssh/known_hosts2\n")
    assert RemoteShell.to_host("node1", "me@127.0.0.2").node.name == "node1"
