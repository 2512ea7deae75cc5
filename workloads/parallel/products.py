"""One matrix product over ranks: how it is split, what each rank computes, and the collective that makes it whole."""

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from labs.traffic import Call, Traffic
from workloads.device import TORCH_DTYPES
from workloads.group import Group

# Shape suffixes: M, N, K of the whole product; R ranks; lower case is a rank's share of that length.

_all_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
_reduce_scatter = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor
"""The names since torch 2.13, which warns of the older ones."""
EXACT = {"fp32": 2**20, "bf16": 16384}
"""Longest K whose sums of the integers below are exact: fp32 holds integers to 2²⁴, bf16 to 256."""
_NONZERO = 0.25
"""Share of entries that are not 0 in the integer matrices: ±1 each. Over K = 16,384 a sum is beyond 256 by chance
once in 10¹⁵ entries (8 standard deviations of √K/4 = 32); `Matrices.wrong` would say so."""


@dataclass(frozen=True, kw_only=True)
class Way:
    """One way to split the product."""

    name: str
    collective: str
    """What makes the result whole."""
    columns: bool
    """B by columns; else by rows, with A by columns."""
    pieced: bool = False
    """Whether the collective runs in pieces of rows, under the product of the next."""

    def traffic(self, ranks: int, result_bytes: int, pieces: int) -> Traffic:
        """What it must send for a result of that size."""
        times = pieces if self.pieced else 1
        call = Call(collective=self.collective, ranks=ranks, buffer_bytes=result_bytes // times, times=times)
        return Traffic(calls=(call,))


WAYS = (
    Way(name="by columns, all-gather", collective="all-gather", columns=True),
    Way(name="by rows, all-reduce", collective="all-reduce", columns=False),
    Way(name="by rows, reduce-scatter", collective="reduce-scatter", columns=False),
    Way(name="by rows, all-reduce in pieces", collective="all-reduce", columns=False, pieced=True),
)


class Matrices:
    """A and B whole on every rank, to draw alike and to check with; each way works on its share of them."""

    def __init__(self, size: tuple[int, int, int], dtype: str, group: Group, seed: int, pieces: int) -> None:
        """Memory for both, a rank's shares and every way's result."""
        m, n, k = size
        self._group, self._dtype, self._seed, self._pieces = group, TORCH_DTYPES[dtype], seed, pieces
        where, ranks = group.device.torch, group.size
        self._a_MK = torch.zeros(m, k, dtype=self._dtype, device=where)
        self._b_KN = torch.zeros(k, n, dtype=self._dtype, device=where)
        self._whole_MN = torch.empty(m, n, dtype=self._dtype, device=where)
        self._columns_Mn = torch.empty(m, n // ranks, dtype=self._dtype, device=where)
        self._gathered_RMn = torch.empty(ranks, m, n // ranks, dtype=self._dtype, device=where)
        self._summand_MN = torch.empty(m, n, dtype=self._dtype, device=where)
        self._scattered_mN = torch.empty(m // ranks, n, dtype=self._dtype, device=where)
        self._shares()

    def _shares(self) -> None:
        """This rank's parts, laid out as a rank would hold them that has no more."""
        rank, ranks = self._group.rank, self._group.size
        self._b_Kn = self._b_KN.chunk(ranks, 1)[rank].contiguous()
        self._a_Mk = self._a_MK.chunk(ranks, 1)[rank].contiguous()
        self._b_kN = self._b_KN.chunk(ranks, 0)[rank].contiguous()

    def fill_integers(self) -> None:
        """-1, 0 and 1, the same on every rank: sums are exact, in any order."""
        generator = torch.Generator(self._group.device.torch).manual_seed(self._seed)
        for matrix in (self._a_MK, self._b_KN):
            drawn = torch.rand(matrix.shape, generator=generator, device=matrix.device)
            matrix.copy_((drawn < _NONZERO / 2).float() - (drawn > 1 - _NONZERO / 2).float())
        self._shares()

    def fill_normal(self) -> None:
        """N(0,1): what a GPU multiplies decides how much power that takes, and so how fast it is."""
        generator = torch.Generator(self._group.device.torch).manual_seed(self._seed + 1)
        for matrix in (self._a_MK, self._b_KN):
            matrix.copy_(torch.randn(matrix.shape, generator=generator, device=matrix.device))
        self._shares()

    def alone(self) -> None:
        """The whole product on this rank."""
        torch.mm(self._a_MK, self._b_KN, out=self._whole_MN)

    def product(self, way: Way) -> None:
        """This rank's share of the FLOPs."""
        if way.columns:
            torch.mm(self._a_MK, self._b_Kn, out=self._columns_Mn)
        elif not way.pieced:
            torch.mm(self._a_Mk, self._b_kN, out=self._summand_MN)
        else:
            for a_pk, out_pN in self._piecewise():
                torch.mm(a_pk, self._b_kN, out=out_pN)

    def collective(self, way: Way) -> None:
        """What makes the result whole, on whatever the buffers hold."""
        if way.columns:
            _all_gather(self._gathered_RMn.flatten(0, 1), self._columns_Mn)
        elif way.collective == "reduce-scatter":
            _reduce_scatter(self._scattered_mN, self._summand_MN)
        elif not way.pieced:
            dist.all_reduce(self._summand_MN)
        else:
            self._finish([dist.all_reduce(out_pN, async_op=True) for _, out_pN in self._piecewise()])

    def both(self, way: Way) -> None:
        """The product and its collective."""
        if not way.pieced:
            self.product(way)
            self.collective(way)
            return
        under_way = []
        for a_pk, out_pN in self._piecewise():
            torch.mm(a_pk, self._b_kN, out=out_pN)
            under_way.append(dist.all_reduce(out_pN, async_op=True))
        self._finish(under_way)

    def _piecewise(self) -> list[tuple[Tensor, Tensor]]:
        return list(zip(self._a_Mk.chunk(self._pieces), self._summand_MN.chunk(self._pieces), strict=True))

    def _finish(self, under_way: list[dist.Work]) -> None:
        for work in under_way:
            work.wait()

    def wrong(self, way: Way) -> str:
        """What is not as float64 has it after `both` on integers; empty where every entry is."""
        expected_MN = self._a_MK.double() @ self._b_KN.double()
        if way.columns:
            found, wanted = torch.cat(list(self._gathered_RMn), 1), expected_MN
        elif way.collective == "reduce-scatter":
            found, wanted = self._scattered_mN, expected_MN.chunk(self._group.size, 0)[self._group.rank]
        else:
            found, wanted = self._summand_MN, expected_MN
        differ = int(torch.count_nonzero(found.double() != wanted))
        return f"{differ} of {found.numel()} entries differ from float64's" if differ else ""
