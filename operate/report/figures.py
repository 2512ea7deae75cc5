"""Which figures a workload's records are worth."""

from collections.abc import Iterable
from xml.etree.ElementTree import Element

from operate.report.allreduce import allreduce
from operate.report.folder import Part
from operate.report.generation import generation
from operate.report.roofline import roofline
from operate.report.training import training

_FIGURES = {"gemm": roofline, "generate": generation, "ddp": training, "collectives": allreduce}


def figures(part: Part) -> Iterable[Element]:
    """The figures of this workload; none for a workload that has none of its own, or has no record."""
    draw = _FIGURES.get(part.name)
    return draw(part.records) if draw and part.records else ()
