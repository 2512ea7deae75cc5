"""A bash that stays gives what a fresh one gives, and no command can reach into the next one's world."""

import threading

import pytest

from operate.shell import Unreachable


@pytest.fixture
def shell(machines, cluster_of):
    return cluster_of(machines(1)).shells.shells["node0"]


def test_codes_and_streams_stay_apart_and_whole(shell):
    for code in (0, 3):
        outcome = shell.run(f"printf out; printf err >&2; exit {code}")
        assert (outcome.code, outcome.stdout, outcome.stderr) == (code, b"out", b"err")
    assert shell.run("true").stdout == b""


def test_bytes_of_every_value_and_many_of_them_come_through(shell):
    wrote = "import os; os.write(1, bytes(range(256)) * 8192)"
    assert shell.run(f"python3 -c '{wrote}' | cat", timeout_s=500).stdout == bytes(range(256)) * 8192


def test_more_on_stderr_than_the_window_holds_does_not_hang(shell):
    """Both streams share one window of 2 MiB; who reads one of them only waits for ever."""
    outcome = shell.run("head -c 9000000 /dev/zero >&2; echo done; exit 3", timeout_s=500)
    assert (outcome.code, outcome.stdout, len(outcome.stderr)) == (3, b"done\n", 9_000_000)
    both = "head -c 5000000 /dev/zero >&2; cat | wc -c; head -c 5000000 /dev/zero >&2"
    outcome = shell.run(both, stdin=b"x" * 7, timeout_s=500)
    assert (outcome.text, len(outcome.stderr)) == ("7", 10_000_000)


def test_a_command_may_write_much_before_it_reads_its_stdin(shell):
    data = b"x" * 6_000_000
    outcome = shell.run("head -c 6000000 /dev/zero; wc -c", stdin=data, timeout_s=500)
    assert outcome.stdout[6_000_000:].strip() == b"6000000"


def test_a_command_need_not_read_its_stdin(shell):
    outcome = shell.run("echo enough; exit 5", stdin=b"x" * 6_000_000)
    assert (outcome.code, outcome.text) == (5, "enough")


def test_a_stream_does_not_stop_for_what_is_said_on_stderr(shell):
    assert b"".join(shell.stream("head -c 9000000 /dev/zero >&2; echo done", idle_s=500)) == b"done\n"


def test_nothing_leaks_from_one_command_into_the_next(shell):
    shell.run("cd /; X=1; set -eu; exec 2>&1; trap 'echo trapped' EXIT; false")
    outcome = shell.run('echo "$PWD ${X:-unset}"; echo "$missing still"; false; echo on')
    assert outcome.text.endswith("unset\n still\non")
    assert not outcome.text.startswith("/ ")


def test_a_command_has_no_stdin_to_steal(shell):
    assert shell.run("cat; echo end").text == "end"
    assert shell.run("echo next").text == "next"


def test_a_syntax_error_fails_that_command_alone(shell):
    assert shell.run("if then").code != 0
    assert shell.run("echo well").text == "well"


def test_several_lines_are_one_command(shell):
    assert shell.run('for i in 1 2; do\n  echo "it\'s $i"\ndone').text == "it's 1\nit's 2"


def test_a_command_over_its_time_does_not_spoil_the_next_one(shell):
    with pytest.raises(Unreachable, match="took over 1 s"):
        shell.run("sleep 3; echo late", timeout_s=1)
    assert shell.run("echo next").text == "next"


def test_a_second_command_at_the_same_time_does_not_wait_for_the_first(shell, tmp_path):
    """The first goes on until the second has run."""
    said = []
    wait = f"touch {tmp_path}/begun; until [ -e {tmp_path}/over ]; do sleep 0.05; done; echo first"
    first = threading.Thread(target=lambda: said.append(shell.run(wait, timeout_s=500).text), daemon=True)
    first.start()
    second = f"until [ -e {tmp_path}/begun ]; do sleep 0.05; done; touch {tmp_path}/over"
    assert shell.run(second, timeout_s=500).code == 0
    first.join(100)
    assert said == ["first"]
