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
    "doctor": Lesson(
        title="The machine itself",
        physics=(
            "A measurement is of a machine, and a machine can be ill: a clock held down by heat or a low power cap, "
            "half of its PCIe lanes, a memory row that failed, a driver older than the software, other programs on its "
            "cores. Each costs more than most optimisations gain. What a link carries is bounded by its lanes: PCIe "
            "4.0 has 2 GB/s each, so 31.5 GB/s on sixteen. Guess how much of that a copy reaches."
        ),
        look=(
            "Read the lines that say warn or fail before any other number of this page: each names what it means and "
            "what to do. A healthy link reaches 80 % of its lanes' rate and more, the rest is packet headers."
        ),
        next="On a machine that is well, whatever is missing to a roof from here on is the program's.",
    ),
    "connectivity": Lesson(
        title="Between the nodes",
        physics=(
            "A collective is as whole as its worst link: where one port is closed, one packet size is lost or one GPU "
            "sums wrongly, all ranks of all nodes wait at full price, and none of them can tell for whom. So each end "
            "of each link is tried by itself first: a small message, then a large one, then every two ranks. A small "
            "message there and back takes about 10 µs on one machine and 50 to 100 µs between two of a placement "
            "group. Guess what it takes here."
        ),
        look=(
            "One line says whether the cluster is well, else who is to blame and for what. In the table a link that is "
            "slower than the others is where training will wait; a pair within one node beside a pair across nodes is "
            "what the network costs a small message."
        ),
        next="On links that are well, what remains is their rate: the collectives measure it.",
    ),
    "fits": Lesson(
        title="What fits",
        physics=(
            "Memory is arithmetic: nothing has to run to know it. Training with AdamW in fp32 keeps 16 bytes for each "
            "parameter, 108 GiB for 7 billion, before a single activation; serving keeps 2 bytes each, and for every "
            "token of every sequence its keys and values. Four L4 have 89 GiB together. Guess which way of spreading "
            "the model over them fits before you look."
        ),
        look=(
            "Blue and green are the states: DDP keeps them whole on every device, FSDP a share on each. Purple grows "
            "with the tokens at once, and shrinks to a tenth where activations are made again for a quarter more time. "
            "The rows that were measured are a small model's on this machine: weights, gradients, moments and KV cache "
            "are exact to the byte, the peak shows what the formulas leave out."
        ),
        next=(
            "Fewer bytes for each parameter (bf16 states, 8-bit moments) or more devices: the first bar that ends left "
            "of the line is the way to train."
        ),
    ),
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
            "reaches some 93 % reading and 87 % in a triad."
        ),
        next=(
            "Bytes cannot be read faster than this, but there can be fewer of them: a dtype of half the size halves "
            "the time of whatever waits for memory. The optimise workload takes that step."
        ),
    ),
    "gemm": Lesson(
        title="Matrix multiplication",
        physics=(
            "Multiplying an m×k by a k×n matrix takes 2·m·n·k FLOPs and moves at least (m·k + k·n + m·n) elements. "
            "FLOPs per byte is the arithmetic intensity. Left of the ridge, where intensity is low, memory sets the "
            "roof: bandwidth × intensity. Right of it the arithmetic units do, and no better code gets past them. "
            "There the shape decides what is reached: tiles that fill all SMs in whole waves, one row more and a wave "
            "is nearly empty. A burst at boost clock and what the power cap sustains are two numbers. Guess what one "
            "column past a full wave costs, and whether zeros multiply faster than random numbers do."
        ),
        look=(
            "Skinny shapes (one row is the decode of a language model) belong on the slope, square ones on the flat "
            "part. A point far below the line has something to gain in the kernel; a point on it gains only from "
            "fewer bytes or a smaller dtype. The row called best of a search was measured after the search, by samples "
            "that chose nothing. A burst may pass the datasheet's peak, which is stated below the top clock; only "
            "above the top clock's peak is a value an error. On a GPU the sawtooth falls where a wave has just filled, "
            "less far than the model where the library knows a way around, and the trace shows the clock sink until "
            "the power fits. Zeros flip no bits: what their ratio has above 1 is power, and a benchmark of zeros tells "
            "it as speed. A CPU has no waves, tells no clock, and shows a ratio near 1."
        ),
        next=(
            "A shape of whole waves and a long inner dimension is worth up to a fifth over a careless one; half the "
            "dtype's size doubles the peak. What is lost between burst and sustained is power: no kernel brings it "
            "back. The roofline workload puts a model's own shapes under this roof."
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
        next=(
            "Decode gains from fewer bytes and from more rows at once, prefill from neither; what generation takes "
            "beyond the sum falls to compilation and graphs. The optimise workload goes there step by step."
        ),
    ),
    "generate": Lesson(
        title="Text generation",
        physics=(
            "The prompt is read in one pass over all its tokens: many FLOPs per byte of weights, so arithmetic bounds "
            "the time to the first token. Every further token needs all the weights once more for a single row: its "
            "time is at least bytes ÷ memory bandwidth, however fast the arithmetic. And every step costs launches and "
            "Python, however small its matrices: what a model of as many narrow layers takes. Guess which of the "
            "three is the largest here."
        ),
        look=(
            "Compare tokens per second of the prompt with those of the answer: they are two different machines. "
            "The spread between median and p99 is what a reader of a stream feels. The longer the prompt, the longer "
            "the wait, first in proportion, then, when attention outweighs the weights, with the square. The faster "
            "the device, the larger the share of overhead: eager mode reaches some 80 % of an L4's memory roof and "
            "less than 30 % of an H200's."
        ),
        next=(
            "Overhead goes with CUDA graphs and fused kernels, bytes with fewer bits a weight: the ladder of Lab 1. "
            "Idle arithmetic serves more users in the same step: the next section."
        ),
    ),
    "load": Lesson(
        title="Many users",
        physics=(
            "A decode step reads all weights for one token of one user, and the same weights serve every other user "
            "in that step: up to a point tokens per second grow with the users, and nobody waits. Past it a queue "
            "grows. Clients that wait for their answers slow down with the server and never show that; users who come "
            "at their own times do. What was promised, a time to the first token and a time per further one, decides "
            "how many requests a second are good. Guess how many users this server takes."
        ),
        look=(
            "Points inside the box keep the promise at the median, and the line above each ends at its p95. Where the "
            "good requests leave the diagonal is the knee: all that comes beyond it makes everybody wait. A server "
            "that takes requests in turn has no use for a second client: same tokens per second, twice the wait. "
            "Tokens per dollar follow tokens per second, so that the price of a token depends on the users as much as "
            "on the machine. The client was tried against a stub first: with less than ten times the server's rate it "
            "would have measured itself."
        ),
        next="Batching shares a step between requests: Lab 4 measures what continuous batching gains.",
    ),
    "optimise": Lesson(
        title="The ladder: one decode, made faster",
        physics=(
            "A token needs every weight that multiplies read once: bytes ÷ the measured read rate is its floor. A "
            "change gains in two ways only. It brings the time nearer to the floor (fewer and larger kernels, no "
            "copies of the cache, one launch for a step), or it lowers the floor (16, 8, 4 bits a weight). What an "
            "eager step costs beside the bytes is starting operations, some microseconds each, thousands of them. "
            "Guess before you look: which single rung removes most milliseconds here?"
        ),
        look=(
            "Follow the share of the read rate: it falls as bits fall, for the floor sinks and the overhead stays. "
            "int8 without a kernel for it is slower than 16 bits, for the weights are unpacked through memory first. "
            "Then the quality: a gain that changes tokens has a price. A rung that the device cannot do is named, "
            "never counted."
        ),
        next=(
            "At batch 1 no rung passes bytes ÷ bandwidth. A second sequence reads the same weights: the next section "
            "asks what it costs."
        ),
    ),
    "batch-sweep": Lesson(
        title="More sequences at once",
        physics=(
            "A batch reads the weights once for all its sequences, and each one's KV cache for it alone. While memory "
            "is the bound a further sequence is nearly free; from the ridge on it costs its arithmetic. Whether the "
            "ridge comes depends on the context S: intensity tends to 2·N_mm/(S·KV) + H/K. A 7B model in bf16 comes "
            "to an H200's 206 FLOP/B only up to S = 537 tokens, at 4,096 it stays at 30.5. Guess: how many sequences "
            "until a step takes twice as long?"
        ),
        look=(
            "Left, where the points leave the slope: up to there tokens per dollar grow with the batch. Right, the "
            "curves that flatten under the ridge: with a long context no batch makes decoding compute-bound, the "
            "cache is read for every sequence. A point far below the roof at a small batch is starting operations; at "
            "a middle one the library's kernel for few rows."
        ),
        next=(
            "Fewer bytes of cache raise the curves: a smaller KV type, or more query heads to a KV head. Continuous "
            "batching keeps the batch full: Lab 4 measures it."
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
        next=(
            "Only exposed communication can be won back: by buckets that start earlier, by a compressed gradient, by a "
            "larger batch on each rank, which computes longer for the same bytes. A model too large for one rank needs "
            "its states sharded instead: the fsdp workload."
        ),
    ),
    "overhead": Lesson(
        title="What the network costs",
        physics=(
            "A step sends its gradients, 4 bytes a parameter, whatever the batch. Between k nodes at least 2(k−1)/k of "
            "them must leave each: 15.7 MB of mistral-nano take 1.26 s at 100 Mbit/s and 0.13 s at 1 Gbit/s, beside "
            "some tenths of a second of arithmetic, and a GPU's arithmetic is a hundred times shorter. The backward "
            "pass can hide at most its own time. Guess before you look: at which link does the network stop to matter?"
        ),
        look=(
            "The stroke is the prediction: arithmetic, then latency and bytes ÷ rate of this very link, nothing "
            "hidden. A bar that ends before it has hidden the rest. bf16 halves the bytes exactly, so it halves the "
            "red part of a slow link and nothing of a fast one, where rounding costs more than it saves. A ring over "
            "two nodes of two ranks sends the wire 1.5 times the gradients, summing within each node first but once."
        ),
        next=(
            "A larger batch computes longer for the same bytes; fewer bytes (bf16) or a faster link do the rest. Run "
            "it again over another link, `fab rehearsal.link 1gbit`, and its bars join these."
        ),
    ),
    "split-gemm": Lesson(
        title="One product on all ranks",
        physics=(
            "A product splits without loss: by columns of B each rank makes its columns of the result, by rows each "
            "makes a summand of all of it. Either way every rank does 1/n of the FLOPs; what differs is what must be "
            "sent afterwards. The FLOPs grow with M·N·K, the bytes with M·N only. Guess before you look: which of "
            "gather, reduce and scatter sends most, and by what factor?"
        ),
        look=(
            "The product of a share should take 1/n of one rank's time; where it does not, the ranks share cores or "
            "the pieces are too small for the device. The red part is sending that nothing hides. In pieces, one "
            "travels while the next is computed: the same bytes, and only the last piece is exposed, if whoever sends "
            "does not need the arithmetic's own cores."
        ),
        next="A model's layer is such products in pairs, by columns and then by rows: the tensor-parallel workload.",
    ),
    "fsdp": Lesson(
        title="Sharded training",
        physics=(
            "Data parallel keeps 16 bytes a parameter on every rank, n times the same. Sharded, a rank keeps 1/n and "
            "gathers a layer just before it runs, once forward and once backward; gradients are summed and scattered. "
            "That is up to twice the bytes for 1/n of the memory, and it is how a model trains that no device holds. "
            "Guess how many gigabytes four L4 send each other for one step of mistral-7b."
        ),
        look=(
            "Losses first: the same as one process's. Then exposed communication: layers are gathered ahead, so that "
            "with enough tokens a step all of it hides; with few it is all there is. Layers that are kept after the "
            "forward pass are gathered once: a third fewer bytes in fp32, for the memory of a whole model."
        ),
        next=(
            "More tokens per rank hide more, until memory ends; recomputed activations make room for them. Bytes that "
            "follow tokens instead of parameters are tensor parallelism's."
        ),
    ),
    "tensor-parallel": Lesson(
        title="Tensor-parallel training and decode",
        physics=(
            "Each rank holds a part of every matrix and all work on the same tokens. Two sums a layer forward and two "
            "backward must cross the links before the next product can start: 8·(n−1)/n · L·T·D elements a step, which "
            "nothing can hide. For a decode T is the batch: kilobytes, 2·L times a token, and each rank reads only 1/n "
            "of the weights. Guess where that pays on links of PCIe: in training, in decode, in neither?"
        ),
        look=(
            "In training count the exposed part against data parallel's: the same tokens, more bytes, none hidden. In "
            "decode the sums are so small that their number counts, not their size: latency × 2·L stands against the "
            "weights' time over n. With split positions the bytes are the same and the memory between blocks is 1/n."
        ),
        next="NVLink changes the verdict, not the arithmetic; between nodes a grid keeps tensor parallelism inside.",
    ),
    "mesh": Lesson(
        title="Data × tensor",
        physics=(
            "A grid of ranks: along one side the batch and the states are shared, along the other each layer's "
            "matrices. Bytes along data follow the parameters, whether states are shared or every rank keeps a copy; "
            "bytes along tensor follow the tokens. So with many parameters and few tokens tensor wins, with many "
            "tokens data, and the grid in between sends less than either end when the two are of a size."
        ),
        look=(
            "Every grid trained on the same batches and its losses are one process's. Compare the bytes first, which "
            "need no clock, then the exposed parts: bytes along data hide under arithmetic, bytes along tensor do not."
        ),
        next="Two nodes: tensor inside a node, data between them, where the slow link carries what can wait.",
    ),
    "scaling": Lesson(
        title="Strong and weak scaling",
        physics=(
            "The same batch on more ranks (strong) is bounded by what does not spread: Amdahl's s, and never more than "
            "1/s times one rank. A batch for each rank (weak) is Gustafson's n − s·(n − 1), which has no end. The same "
            "machine has both numbers: which one is yours depends on whether you have more data or less time."
        ),
        look=(
            "Residuals that grow with the ranks are not serial work: they are communication, or cores that ranks "
            "share. The bars name it. Mind the baseline: one rank with as many threads as the others. Against one that "
            "takes all cores, ranks on a CPU seem to gain nothing at all."
        ),
        next="Where exposed communication grows, more tokens a rank; where idle time grows, fewer and larger launches.",
    ),
    "collectives": Lesson(
        title="Collectives",
        physics=(
            "Time is roughly α + bytes/β: small messages pay latency, large ones bandwidth. Bus bandwidth is bytes ÷ "
            "time, times what each rank must send at least (2(n−1)/n of the buffer in an all-reduce), so that it "
            "compares with a link's speed whatever the number of ranks. What crosses between nodes is the "
            "algorithm's: a ring sends 2(n−1)/n of the buffer out of each node, a tree 2(k−1)/k. Guess before you "
            "look: how large must a message be to travel at half of β?"
        ),
        look=(
            "The bend between the two regimes, at α·β, says how large a gradient bucket must be to be worth sending. "
            "A wide band between ranks means that one of them is waiting; a residual that is large, that the library "
            "changed its protocol on the way. With two nodes a tree's bus bandwidth may pass the network's rate: the "
            "wire rate of each GPU cannot."
        ),
        next=(
            "Messages beyond the bend gain from a faster link alone, smaller ones from being sent together. In the "
            "ddp workload the same messages hide behind the backward pass, as far as that lasts."
        ),
    ),
    "train": Lesson(
        title="A training that survives",
        physics=(
            "Of many machines one always fails: with a year between a machine's failures, a thousand of them fail "
            "three times a day, and one lost rank ends all. What is lost is what was not saved. Weights and moments "
            "are 12 bytes a parameter; copied aside and written while the training goes on they cost little, but they "
            "count only when every rank has written: half of them is worth nothing. Guess: killed at a random moment, "
            "how much of an interval is done again on average?"
        ),
        look=(
            "The line after each gap begins where the newest whole checkpoint stood, and its losses are the same "
            "again: bit by bit on as many ranks, for batches follow the step and not the rank; otherwise within 1e-5. "
            "Of the gap reading is the smallest part: noticing the loss and starting Python take longer. The interval "
            "was kept: rather than let more steps stand unsaved, the training waits for its files."
        ),
        next=(
            "A shorter interval loses less and costs more: Lab 4's checkpoint workload reckons the best. On spot the "
            "checkpoint must fit into 120 s of notice; `fab preflight` says whether it does."
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
    "fp8-training": Lesson(
        title="Training in fp8",
        physics=(
            "An fp8 product runs at twice the rate of bf16, but only the layers' products are in fp8: output table, "
            "attention, norms and Adam are not, and every operand is first read for its largest value, scaled and "
            "rounded to 3 bits of mantissa. By Amdahl a step gains 1.2 to 1.4 times, not 2. It is worth that only if "
            "the model learns the same. Guess: is the difference in loss larger than between two random seeds?"
        ),
        look=(
            "The band is what chance does: bf16 from other weights on other data. The fp8 line has the first seed's "
            "weights and data and must stay by its curve, not merely in the band. Where the device has no fp8 products "
            "they are emulated, and only the loss is told: emulation is slower, which says nothing."
        ),
        next="Scaling by row (--recipe rowwise) keeps more of small values and costs most of the gain.",
    ),
    "recompute": Lesson(
        title="Time against memory",
        physics=(
            "The backward pass needs what the forward pass computed: in the 7B model 94 kB a token and layer where "
            "the compiler may make norms and SwiGLU again, 139 kB where all is kept. Keeping only each layer's input "
            "takes 17 times less and runs every layer's forward pass twice: 8 FLOPs a weight instead of 6. Guess how "
            "much longer a step takes then, before you look."
        ),
        look=(
            "Points on the dashed line cost what their FLOPs cost. One to the left of it and no higher is a bargain: "
            "operations that keep much and compute little, such as norms, are made again almost for nothing."
        ),
        next=(
            "The memory that is freed holds more sequences, and so a larger batch in train-step: recompute only as "
            "much as the batch you need asks for."
        ),
    ),
    "checkpoint": Lesson(
        title="Saving without stopping",
        physics=(
            "A training state is 12 bytes a parameter, 87 GB for the 7B model. Written while the training waits it "
            "costs bytes ÷ the disk's rate. Copied into memory and written in the background it costs bytes ÷ the "
            "memory's rate, tens of times less; copied beside the next forward and backward pass, less still. But the "
            "writer takes cores and memory from the steps beside it: so what counts is the wall time of many steps "
            "with a save minus that without, not how soon the call returns."
        ),
        look=(
            "The first save makes its buffers and may be slower than torch.save: it stands apart. Then the verdict: a "
            "spot instance is told 120 s before its end, and at 240 MB/s the 7B model's state takes 362 s. What "
            "cannot be written in time must have been written before: save as often as Young and Daly say."
        ),
        next=(
            "A faster disk shortens the notice's problem, not the blocked time; NVMe is fast and gone with the "
            "instance, so copy from it to FSx or S3. The storage workload says what each disk here gives."
        ),
    ),
    "data-loading": Lesson(
        title="Feeding the device",
        physics=(
            "Without workers fetching and training take turns: a step is compute + load. With w workers it is "
            "max(compute, load ÷ w), while there are cores for both. A device that waits costs as much an hour as one "
            "that works. Guess which form of the same tokens starves it: one mapped file, a file a sample, or text "
            "that is tokenised on the way."
        ),
        look=(
            "Red is waiting. Tokens made beforehand cost next to nothing however they lie on a local disk; on a "
            "network's file system every small file costs a round trip. Text costs a worker or more. On a CPU workers "
            "take their cores from the training itself, and side by side is slower than predicted."
        ),
        next="Tokenise once, into one file: then no worker is needed, and the cores are free.",
    ),
    "storage": Lesson(
        title="Storage",
        physics=(
            "Files come at the rate that was bought: a gp3 volume gives 125 MiB/s, FSx for Lustre 200 MB/s for each "
            "TiB of scratch, whatever the GPU beside it costs; an instance's own NVMe is the machine's and goes with "
            "it. A single page costs a request, so that small reads are counted and not weighed, and a small file "
            "costs several. What was read once lies in memory, and the second time says nothing of the disk. Guess: "
            "how long would the weights of a 7B model take from here?"
        ),
        look=(
            "Cold against warm is disk against memory: whoever measures without saying which has measured neither. "
            "One thread waits for each answer, many keep the disk busy; ours and fio agree where the disk is the "
            "limit. Many small files fall furthest behind: on Lustre an `import torch` opens two thousand of them. "
            "Above the documented rate a file server has answered from its memory, or spent credits that run out."
        ),
        next="Weights load at what the first read shows, if the loader lets them: the next section.",
    ),
    "weights": Lesson(
        title="Loading weights",
        physics=(
            "Before the first token all weights must reach the device: at least bytes ÷ the slowest link, be it "
            "storage, network or the host's link to the GPU, while the GPU is paid and idle. A mapped file brings a "
            "page when it is touched, one after another; many readers and a copy that goes on beside them reach the "
            "link's own rate. Guess what share of it the usual loader reaches."
        ),
        look=(
            "Cold, every way is held against the same file read with nothing done to it; what is missing is the "
            "loader's. Warm, on a GPU, page faults and a copy that waits for the read decide. On a CPU a warm mapped "
            "file is already where it stays, and nothing that copies can beat it. Every tensor was compared bit for "
            "bit."
        ),
        next="Fewer bits a weight load faster in proportion; a second replica on the node loads warm.",
    ),
    "batching": Lesson(
        title="Continuous batching",
        physics=(
            "All weights are read at each step, for one sequence or for many. In a fixed batch everybody stays until "
            "the longest answer ends, and the places of those who are done work for nothing: with lengths as users "
            "have them that is half of the work and more. Continuous batching fills a place as soon as it is free. "
            "Guess the gain before you look: at most 1 ÷ (1 − padding)."
        ),
        look=(
            "The share of padding is counted from the lengths, before anything runs; what continuous batching gains "
            "less than that is the price of scheduling between steps, large beside a small model on a CPU, small "
            "beside a 7B on a GPU. Over the figure's frontier no choice is better in both: a larger batch makes "
            "tokens cheaper and each of them later."
        ),
        next="`fab advise` reads these numbers against prices: the cheapest way to so many tokens, within your bounds.",
    ),
}
