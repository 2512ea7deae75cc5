"""nccl-tests: its tables as they were recorded, our formulas on them, and a program that plays it."""

from pathlib import Path

import pytest

from workloads.collective.nccltests import find_binary, parity_note, read_table, run_beside

# aws/aws-k8s-tester pull request 503 (p5.48xlarge, -1 is the root), and aws/aws-ofi-nccl issue 33 (no root column).
NEW = """\
# nThread 1 nGpus 8 minBytes 8 maxBytes 17179869184 step: 2(factor) warmup iters: 5 iters: 20 agg iters: 1 validation: 1
#                                                              out-of-place                       in-place
#       size         count      type   redop    root     time   algbw   busbw #wrong     time   algbw   busbw #wrong
#        (B)    (elements)                               (us)  (GB/s)  (GB/s)            (us)  (GB/s)  (GB/s)
           8             2     float     sum      -1    12.90    0.00    0.00      0    12.87    0.00    0.00      0
  8589934592    2147483648     float     sum      -1    36956  232.43  406.76      0    36911  232.72  407.26      0
 17179869184    4294967296     float     sum      -1    73913  232.43  406.76      0    73917  232.42  406.73      0
# Out of bounds values : 0 OK
# Avg bus bandwidth    : 273.886
"""
OLD = """\
#       size         count    type   redop     time   algbw   busbw  error     time   algbw   busbw  error
     1048576        262144   float     sum   1035.3    1.01    1.90  5e-07    643.4    1.63    3.06  5e-07
     2097152        524288   float     sum    671.4    3.12    5.86  5e-07    671.8    3.12    5.85  5e-07
"""


def test_a_table_is_read_out_of_place() -> None:
    rows = read_table(NEW)
    assert [row.size_bytes for row in rows] == [8, 8589934592, 17179869184]
    last = rows[-1]
    assert (last.dtype, last.time_s) == ("float", 73913 / 1e6)
    assert (last.algbw, last.busbw) == (232.43e9, 406.76e9)
    assert [row.time_s for row in read_table(OLD)] == [1035.3 / 1e6, 671.4 / 1e6]
    assert read_table("# nothing ran\n") == []


@pytest.mark.parametrize(("text", "ranks"), [(NEW, 8), (OLD, 16)])
def test_our_formulas_give_its_numbers(text: str, ranks: int) -> None:
    assert all(row.agrees(ranks) for row in read_table(text))
    assert not any(row.agrees(ranks // 2) for row in read_table(text) if row.size_bytes > 8)


def test_the_note_says_whether_both_mean_the_same() -> None:
    rows = read_table(NEW)
    assert parity_note(rows, 8) == ("nccl-tests on 8 GPUs of the first node: 3 sizes, from its times our formulas give "
                                    "its algbw and busbw")  # fmt: skip
    assert "at 8589934592 B its bandwidths are not what our formulas give" in parity_note(rows, 4)


def program(folder: Path, script: str) -> Path:
    path = folder / "all_reduce_perf"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def test_it_is_run_on_the_same_sizes_and_its_failure_is_one_line(tmp_path: Path) -> None:
    telling = program(tmp_path, f'echo "$@" > {tmp_path}/arguments\ncat <<"END"\n{NEW}END')
    rows, failure = run_beside(telling, 8, (1024, 2048, 4096), 2)
    assert (len(rows), failure) == (3, "")
    assert (tmp_path / "arguments").read_text() == "-b 1024 -e 4096 -f 2 -g 8\n"
    failing = program(tmp_path, "echo 'error while loading shared libraries: libmpi.so.40' >&2; exit 127")
    words = "nccl-tests failed with exit code 127: error while loading shared libraries: libmpi.so.40"
    assert run_beside(failing, 8, (1024,), 2) == ([], words)


def test_it_is_found_in_path_or_where_images_have_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert find_binary(tmp_path) is None
    older = program(tmp_path / "usr/local/cuda-12.8/efa/test-cuda-12.8", "true")
    assert find_binary(tmp_path) == older
    newer = program(tmp_path / "usr/local/cuda-13.0/efa/test-cuda-13.0", "true")
    assert find_binary(tmp_path) == newer
    mine = program(tmp_path / "bin", "true")
    assert find_binary(tmp_path) == mine
