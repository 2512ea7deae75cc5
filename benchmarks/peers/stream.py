"""A triad and a dot product as BabelStream defines them, plainly written: bytes a second past the cache.

a = b + s·c moves three arrays, the sum of b·c reads two (https://github.com/UoB-HPC/BabelStream): one loop in C with
OpenMP on a CPU, one Triton kernel with a block's worth of elements a program on a GPU. The best of the samples is what
such a benchmark reports, and what it is compared by.

    python -m benchmarks.peers.stream triad
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

KERNELS = {"triad": 3, "dot": 2}
"""Arrays that each moves."""
_C = """
#include <stdio.h>
#include <stdlib.h>
#include <omp.h>
int main(int count, char **words) {
    long n = atol(words[1]) / sizeof(float), times = atol(words[2]);
    int dot = words[3][0] == 'd';
    float *a = malloc(n * sizeof *a), *b = malloc(n * sizeof *b), *c = malloc(n * sizeof *c), sum = 0;
    if (!a || !b || !c) return 4;
    #pragma omp parallel for schedule(static)
    for (long i = 0; i < n; i++) { a[i] = 0; b[i] = 0.25f; c[i] = 0.5f; }
    double best = 1e30;
    for (long round = 0; round < times; round++) {
        double begin = omp_get_wtime();
        if (dot) {
            sum = 0;
            #pragma omp parallel for simd schedule(static) reduction(+ : sum)
            for (long i = 0; i < n; i++) sum += b[i] * c[i];
        } else {
            #pragma omp parallel for simd schedule(static)
            for (long i = 0; i < n; i++) a[i] = b[i] + 0.75f * c[i];
        }
        double taken = omp_get_wtime() - begin;
        if (taken < best) best = taken;
    }
    if (dot ? sum < 0.1f * n : a[n - 1] != 0.625f) return 5;
    printf("%.9e\\n", best);
    return 0;
}
"""


def main(arguments: list[str]) -> int:
    """Print "figure: BYTES_PER_SECOND"."""
    parser = argparse.ArgumentParser(prog="stream", description=__doc__)
    parser.add_argument("kernel", choices=KERNELS)
    parser.add_argument("--mib", type=int, help="of each array; default: 1024 on a GPU, 256 on a CPU")
    parser.add_argument("--times", type=int, default=50, help="samples")
    flags = parser.parse_args(arguments)
    import torch

    cuda = torch.cuda.is_available()
    count = (flags.mib or (1024 if cuda else 256)) * 2**20
    if cuda:
        from benchmarks.peers.stream_triton import best_s

        seconds: float | None = best_s(flags.kernel, count, flags.times)
    else:
        seconds = _compiled(flags.kernel, count, flags.times)
    if seconds is None:
        print("stream: no C compiler with OpenMP: apt-get install gcc", file=sys.stderr)
        return 3
    print(f"figure: {KERNELS[flags.kernel] * count / seconds:.6e}")
    return 0


def _compiled(kernel: str, count: int, times: int) -> float | None:
    """Least seconds by the machine's own C compiler; None without one."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        source, program = Path(folder) / "stream.c", Path(folder) / "stream"
        source.write_text(_C)
        # -ffast-math lets a sum use whole vectors, as every BLAS does.
        made = subprocess.run([compiler, "-O3", "-march=native", "-ffast-math", "-fopenmp", str(source), "-o",
                               str(program)], capture_output=True, text=True, check=False)  # fmt: skip
        if made.returncode:
            return None
        done = subprocess.run([str(program), str(count), str(times), kernel], capture_output=True, text=True,
                              check=True)  # fmt: skip
    return float(done.stdout)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
