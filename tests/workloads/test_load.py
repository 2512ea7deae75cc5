"""serve and load as a user runs them: the real server once, a stand-in where the server does not matter."""

import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from labs.results import read
from tests.workloads.launching import ENVIRONMENT, ROOT
from workloads import load, serve
from workloads.command import CheckFailed
from workloads.serving import endpoint, proof
from workloads.serving.driving import Demand

QUICK = ["--device", "cpu", "--prompt", "6", "--new-tokens", "5", "--window-s", "0.3"]


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stub in the server's place: it answers at once, and counts as a server does."""
    monkeypatch.setattr(endpoint.Plan, "command", property(
        lambda plan: [sys.executable, "-m", "workloads.serving.stub", str(plan.port)]))  # fmt: skip
    monkeypatch.setattr(proof, "WINDOW_S", 0.1)


@pytest.mark.timeout(600)
def test_a_real_server_is_served_asked_measured_and_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proof, "WINDOW_S", 0.1)
    server = subprocess.Popen(
        [sys.executable, "-m", "workloads.serve", "--device", "cpu", "--model", "mistral-nano", "--server",
         "transformers", "--folder", str(tmp_path / "models"), "--out", str(tmp_path)],
        cwd=ROOT, env=ENVIRONMENT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert server.stdout is not None
    assert server.stdout.readline().startswith("starting transformers's server with mistral-nano in fp32; its log: ")
    serving, example, tunnel = (server.stdout.readline() for _ in range(3))
    assert serving.startswith("serving mistral-nano-fp32-0 with transformers at http://127.0.0.1:"), endpoint.tail(
        tmp_path / "serve.log"
    )
    url = serving.split(" at ")[1].split("/v1")[0]
    assert f"curl -N {url}/v1/completions" in example
    assert "fab tunnel --lab N --port " in tunnel
    model = str(tmp_path / "models" / "mistral-nano-fp32-0")
    load.main([*QUICK, "--url", url, "--served-model", model, "--clients", "1,2", "--rates", "20", "--out",
               str(tmp_path)])  # fmt: skip
    server.send_signal(signal.SIGTERM)
    stdout, stderr = server.communicate(timeout=300)
    assert (server.returncode, stdout) == (0, "ended\n"), stderr
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(f"{url}/health", timeout=5)
    record = read(tmp_path / "load.node0.json")
    of = {row.name: row for row in record.measurements}
    assert record.machine.device == f"behind {url}"
    for name in ("1 client", "2 clients", "20 requests/s"):
        assert of[f"{name}: throughput"].config["answered"] == of[f"{name}: throughput"].config["requests"] > 0
    first = of["1 client: time to first token"]
    assert len(first.samples_s) == first.config["requests"]
    assert first.no_roof_because == f"the device behind {url} is not known"
    assert of["2 clients: throughput"].expected is not None
    assert any(note.startswith("client carried ") for note in record.notes)


def test_load_brings_its_own_server_and_proves_its_client(
    stand_in: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ROOFLAB_USD_PER_HOUR", "3.6")
    load.main([*QUICK, "--clients", "1,3", "--folder", str(tmp_path / "models"), "--out", str(tmp_path)])
    record = read(tmp_path / "load.node0.json")
    kinds = [row.config["kind"] for row in record.measurements]
    assert kinds[0] == "proof"
    assert {"closed", "open"} <= set(kinds)
    levels = list(dict.fromkeys(row.config["level"] for row in record.measurements if row.config["kind"] == "closed"))
    assert levels == ["1 client", "3 clients"]
    rate = next(row for row in record.measurements if row.name == "3 clients: throughput")
    assert rate.usd_per_unit == pytest.approx(1e-3 / rate.value * 1e6)
    assert rate.checked == "usage of every answer: 6 prompt and 5 completion tokens"
    assert "is not in labs/accelerators.py" in rate.no_roof_because
    assert record.config["served"]["model"] == "mistral-nano"
    opened = [row for row in record.measurements if row.config["kind"] == "open" and row.config["what"] == "first"]
    assert opened
    assert all(row.expected and "each due as it was" in row.expected.source for row in opened)
    told = capsys.readouterr().out
    assert told.index("client: ") < told.index("foretold 3 clients: ") < told.index("  3 clients: ")
    assert "promised: first token within 0.5 s, then 0.05 s per token" in told
    assert record.notes[0].endswith("requests are served in turn")


def test_an_answer_of_another_length_is_a_failed_check(
    stand_in: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    carried = proof.carried(Demand(prompt=6, new_tokens=5, seed=0), 1)
    monkeypatch.setattr(proof, "carried", lambda *_: carried)
    monkeypatch.setattr("workloads.serving.tokens.prompt", lambda count, seed: " ab" * (count + 1))
    with pytest.raises(
        CheckFailed, match=r"^1 client: usage says 7 prompt and 5 completion tokens, asked for 6 and 5$"
    ):
        load.main([*QUICK, "--clients", "1", "--folder", str(tmp_path / "models"), "--out", str(tmp_path)])
    assert not (tmp_path / "load.node0.json").exists()


def test_a_server_that_ends_at_once_is_said_with_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = [sys.executable, "-c", "print('CUDA driver is too old'); raise SystemExit(3)"]
    monkeypatch.setattr(endpoint.Plan, "command", property(lambda _plan: broken))
    with pytest.raises(CheckFailed, match="transformers's server ended with exit code 3: CUDA driver is too old"):
        load.main([*QUICK, "--server", "transformers", "--folder", str(tmp_path / "m"), "--out", str(tmp_path)])


def test_a_server_that_never_answers_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deaf = [sys.executable, "-c", "import sys, time; print('loading', flush=True); time.sleep(600)"]
    monkeypatch.setattr(endpoint.Plan, "command", property(lambda _plan: deaf))
    monkeypatch.setattr(serve, "PATIENCE_S", {False: 0.2, True: 0.2})
    with pytest.raises(CheckFailed, match=r"transformers's server did not answer within 0\.2 s: "):
        load.main([*QUICK, "--server", "transformers", "--folder", str(tmp_path / "m"), "--out", str(tmp_path)])


@pytest.mark.parametrize(
    ("main", "arguments", "message"),
    [
        (
            load.main,
            ["--clients", "2,4"],
            "clients=(2, 4) has no 1, from which the rest is foretold: write for example",
        ),
        (load.main, ["--clients", "1,x"], "argument --clients: 'x' is not a whole number of at least 1"),
        (
            load.main,
            ["--rates", "0"],
            "argument --rates: '0' is not a rate: write requests per second, for example 0.5",
        ),
        (load.main, ["--new-tokens", "1"], "new_tokens=1 leaves no time per token: write at least 2"),
        (load.main, ["--prompt", "5000"], "prompt=5000 and new_tokens=24 exceed the server's 4096 tokens: write less"),
        (load.main, ["--url", "localhost:8000"], "url='localhost:8000' is not an endpoint: write for example http://"),
        (load.main, ["--url", "http://127.0.0.1:1"], "url='http://127.0.0.1:1' does not answer ("),
        (load.main, ["--model", "gpt-2"], "model='gpt-2' does not exist: write one of mistral-7b"),
        (serve.main, ["--dtype", "fp8"], "dtype='fp8' is not one that models run in: write fp32, fp16, bf16"),
        (serve.main, ["--server", "tgi"], "argument --server: invalid choice: 'tgi'"),
    ],
)
def test_a_wrong_flag_is_one_line_and_exit_code_2(
    main: object, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ending:
        main(["--device", "cpu", *arguments])  # type: ignore[operator]
    stderr = capsys.readouterr().err
    assert ending.value.code == 2
    assert stderr.count("\n") == 1
    assert message in stderr


def test_a_port_that_is_taken_is_said(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ended = subprocess.run(
            [sys.executable, "-m", "workloads.serve", "--device", "cpu", "--port", str(port), "--out", str(tmp_path)],
            cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert ended.returncode == 1
    assert f"serve: check failed: port {port} cannot be listened on (Address already in use): write another --port" in (
        ended.stderr
    )


@pytest.mark.parametrize("workload", [load, serve])
def test_help_gives_the_physics_and_two_commands_that_the_parser_takes(
    workload: object, capsys: pytest.CaptureFixture[str]
) -> None:
    commands = [line.split()[3:] for line in str(workload.__doc__).splitlines() if line.startswith("    python -m ")]
    assert len(commands) == 2
    for flags in commands:
        with pytest.raises(SystemExit, match="0"):
            workload.main([*flags, "--help"])  # type: ignore[attr-defined]
    assert "Method:" in capsys.readouterr().out
