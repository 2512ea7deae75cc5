"""What each workload teaches: the physics in a few sentences, before any number, and what to look at after."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """The words around one workload's numbers."""

    title: str
    physics: str
    look: str
    """What to look for in the figure and the table."""
    next: str = ""
    """What the next step gains, and where it is taken: the last line of the section."""


LESSONS = {
    "bandwidth": Lesson(
        title="Memory bandwidth",
        physics=(
            "A program that does little with each byte waits for memory: its time is at least bytes ÷ bandwidth, and "
            "nothing in the arithmetic changes that. A copy moves each array once in and once out, a triad moves "
            "three. While the arrays fit in the cache the rate is the cache's; past it, the memory's. Guess before "
            "you look: by what factor do the two differ here?"
        ),
        look=(
            "The level at the right end is the measured ceiling: hold a decoder's tokens per second against the read "
            "figure, not against the datasheet, and against the best of the reading kernels, or it may come out above "
            "100 %. What is missing to the datasheet is refresh and turnaround between reads and writes: a GPU "
            "reaches some 93 % reading and 87 % in a triad. A smaller dtype is the next step: the same bytes, more "
            "numbers."
        ),
    ),
    "gemm": Lesson(
        title="Matrix multiplication",
        physics=(
            "Multiplying an m×k by a k×n matrix takes 2·m·n·k FLOPs and moves at least (m·k + k·n + m·n) elements. "
            "FLOPs per byte is the arithmetic intensity. Left of the ridge, where intensity is low, memory sets the "
            "roof: bandwidth × intensity. Right of it the arithmetic units do, and no better code gets past them. "
            "There the shape decides what is reached: tiles that fill all SMs in whole waves, one row more and a wave "
            "is nearly empty. A burst at boost clock and what the power cap sustains are two numbers."
        ),
        look=(
            "Skinny shapes (one row is the decode of a language model) belong on the slope, square ones on the flat "
            "part. A point far below the line has something to gain in the kernel; a point on it gains only from "
            "fewer bytes or a smaller dtype. The row called best of a search was measured after the search, by samples "
            "that chose nothing. A burst may pass the datasheet's peak, which is stated below the top clock; only "
            "above the top clock's peak is a value an error."
        ),
    ),
    "roofline": Lesson(
        title="The model under its roof",
        physics=(
            "Every operation has an intensity, FLOPs per byte, before anything runs: so its shortest time is known, "
            "max(FLOPs ÷ peak, bytes ÷ bandwidth), by the ceilings that this very machine just showed. Decoding one "
            "token multiplies every weight by one row, about one FLOP per byte in bf16: far left of the ridge. A "
            "prompt of many tokens uses each weight for all of them: right of it. Guess the time of gate-up in both."
        ),
        look=(
            "Rows up to the ridge cost what one row costs: a batch of 16 for the price of one. Unfused, a chain of "
            "any length stays at one intensity; fused it climbs, for the bytes stay the same. In the tables the gaps "
            "are in named milliseconds, largest first worth mending; the sum is what a step takes without any "
            "overhead, so that what generation takes beyond it is launches, Python and small kernels."
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
    "train-step": Lesson(
        title="A training step",
        physics=(
            "Every trained token costs two FLOPs for each multiplying weight in the forward pass and four in the "
            "backward, and attention to the tokens before it. Peak ÷ that is the roof, and the share of it is the MFU. "
            "Beside the arithmetic a step moves memory: 28 bytes a parameter for AdamW, once a step whatever the "
            "batch, and some 18 MB of activations a token for the 7B model. Guess before you look: at which batch is "
            "the optimiser no longer worth mending?"
        ),
        look=(
            "Compare the shares by three conventions: 6P + 12·L·D·S counts the input table and the half of attention "
            "that causality leaves out, and prints more for the same speed. Where the curve flattens arithmetic is the "
            "bound; a batch beyond it costs memory and gains nothing. The row of memory says what was predicted, part "
            "by part."
        ),
        next=(
            "Micro-batches share one optimiser step (--accumulate); Lab 4's fp8-training halves the time of the "
            "products, and recompute makes room for a larger batch."
        ),
    ),
}
