"""What each workload teaches: the physics in a few sentences, before any number, and what to look at after."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """The words around one workload's numbers."""

    title: str
    physics: str
    look: str
    """What to look for in the figure and the table, and what a next step would gain."""


LESSONS = {
    "gemm": Lesson(
        title="Matrix multiplication",
        physics=(
            "Multiplying an m×k by a k×n matrix takes 2·m·n·k FLOPs and moves at least (m·k + k·n + m·n) elements. "
            "FLOPs per byte is the arithmetic intensity. Left of the ridge, where intensity is low, memory sets the "
            "roof: bandwidth × intensity. Right of it the arithmetic units do, and no better code gets past them."
        ),
        look=(
            "Skinny shapes (one row is the decode of a language model) belong on the slope, square ones on the flat "
            "part. A point far below the line has something to gain in the kernel; a point on it gains only from "
            "fewer bytes or a smaller dtype."
        ),
    ),
    "generate": Lesson(
        title="Text generation",
        physics=(
            "The prompt is read in one pass over all its tokens: many FLOPs per byte of weights, so arithmetic bounds "
            "the time to the first token. Every further token needs all the weights once more for a single row: its "
            "time is at least bytes ÷ memory bandwidth, however fast the arithmetic."
        ),
        look=(
            "Compare tokens per second of the prompt with those of the answer: they are two different machines. "
            "The spread between median and p99 is what a reader of a stream feels."
        ),
    ),
    "ddp": Lesson(
        title="Data-parallel training",
        physics=(
            "Every rank computes gradients on its own share of the batch, then all ranks average them: a ring sends "
            "2(n−1)/n times the gradient's bytes through every rank, each step. What of that is not hidden behind the "
            "backward pass is lost. The result must equal one process that saw the whole batch."
        ),
        look=(
            "The check comes first: speed with other gradients is no speed. Then compare the step's time with the "
            "gradient's bytes ÷ the bus bandwidth that the collectives reached."
        ),
    ),
    "collectives": Lesson(
        title="All-reduce",
        physics=(
            "Time is roughly α + bytes/β: small messages pay latency, large ones bandwidth. Bus bandwidth is "
            "2(n−1)/n × bytes ÷ time, the rate at which a link would have to run, so that it compares with the link's "
            "speed whatever the number of ranks."
        ),
        look=(
            "The bend between the two regimes says how large a gradient bucket must be to be worth sending. "
            "A wide band between ranks means that one of them is waiting."
        ),
    ),
}
