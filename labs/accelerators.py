"""What one GPU can do at most: FLOP/s per data type, bytes/s, memory, SMs; each with the source of its figures.

A device is known by the exact name that its driver reports, or by EC2's name and memory. Names are not guessed:
a MIG slice, a vGPU or a PCIe variant under a similar name has other figures, so it has no roof. A figure that no
datasheet states is None. FLOP/s are dense, never "with sparsity", and tensor cores accumulate in fp32.
"""

from dataclasses import dataclass, field

from labs.instances import InstanceType


@dataclass(frozen=True, kw_only=True)
class Accelerator:
    """One GPU, whole."""

    name: str
    """Short name for people, for example "A100-80"."""
    driver_names: tuple[str, ...]
    """Names that the driver reports (`torch.cuda.get_device_name`, `nvidia-smi -L`)."""
    ec2_name: str
    """Name in EC2's DescribeInstanceTypes, as `InstanceType.gpu` has it."""
    memory_gb: int
    """Nominal memory in GB as sold; what is left for a program stands in `InstanceType.gpu_memory_mib`."""
    peak_tflops: dict[str, float]
    """Dense peak in TFLOP/s by data type: fp32 (not on tensor cores), tf32, fp16, bf16, fp8. A type that is absent
    is one that the device lacks in hardware, or that no datasheet states."""
    gb_per_s: float | None
    """Peak rate of the device's own memory in GB/s (10**9)."""
    sms: int | None
    """Streaming multiprocessors that are switched on."""
    flop_per_clock: dict[str, int] = field(default_factory=dict)
    """Dense FLOPs of one SM in one clock cycle by data type; absent where no paper states it. NVIDIA's architecture
    white papers; times `sms` and a clock they give every peak in `peak_tflops`, which a test checks."""
    top_mhz: int | None = None
    """Highest SM clock; the datasheet's peaks may be stated at a lower one (Hopper's tensor cores at 1830 MHz)."""
    source: str
    """Where the figures come from."""

    def peak_flops(self, dtype: str) -> float | None:
        """Dense peak in FLOP/s for "fp32", "tf32", "fp16", "bf16" or "fp8"; None where it is not known."""
        tflops = self.peak_tflops.get(dtype)
        return None if tflops is None else tflops * 1e12

    def flops_at(self, dtype: str, clock_mhz: float) -> float | None:
        """Dense peak in FLOP/s when all SMs run at `clock_mhz`; None where the work per clock is not known."""
        per_clock = self.flop_per_clock.get(dtype)
        return None if per_clock is None or self.sms is None else self.sms * per_clock * clock_mhz * 1e6

    @property
    def bytes_per_s(self) -> float | None:
        """Peak rate of the device's memory in B/s."""
        return None if self.gb_per_s is None else self.gb_per_s * 1e9


_VOLTA = {"fp32": 128, "fp16": 1024}
_GA100 = {"fp32": 128, "tf32": 1024, "fp16": 2048, "bf16": 2048}
_A10G = {"fp32": 256, "tf32": 256, "fp16": 512, "bf16": 512}
"""Half of the A10's per SM: sums in fp32 run at half rate, as its datasheet's 70 TFLOP/s at 1710 MHz says."""
_ADA = {"fp32": 256, "tf32": 512, "fp16": 1024, "bf16": 1024, "fp8": 2048}
_HOPPER = {"fp32": 256, "tf32": 2048, "fp16": 4096, "bf16": 4096, "fp8": 8192}

_HALVED = "; tensor figures halved where it states them with sparsity"

ACCELERATORS: tuple[Accelerator, ...] = (
    Accelerator(
        name="T4", driver_names=("Tesla T4", "NVIDIA T4"), ec2_name="T4", memory_gb=16, sms=40, gb_per_s=320,
        peak_tflops={"fp32": 8.1, "fp16": 65},
        flop_per_clock=_VOLTA, top_mhz=1590,
        source="NVIDIA T4 datasheet",
    ),
    Accelerator(
        name="V100-16", driver_names=("Tesla V100-SXM2-16GB",), ec2_name="V100", memory_gb=16, sms=80, gb_per_s=900,
        peak_tflops={"fp32": 15.7, "fp16": 125},
        flop_per_clock=_VOLTA, top_mhz=1530,
        source="NVIDIA V100 datasheet, SXM2",
    ),
    Accelerator(
        name="V100-32", driver_names=("Tesla V100-SXM2-32GB",), ec2_name="V100", memory_gb=32, sms=80, gb_per_s=900,
        peak_tflops={"fp32": 15.7, "fp16": 125},
        flop_per_clock=_VOLTA, top_mhz=1530,
        source="NVIDIA V100 datasheet, SXM2",
    ),
    Accelerator(
        name="A10G", driver_names=("NVIDIA A10G",), ec2_name="A10G", memory_gb=24, sms=80, gb_per_s=600,
        peak_tflops={"fp32": 35, "tf32": 35, "fp16": 70, "bf16": 70},
        flop_per_clock=_A10G, top_mhz=1710,
        source="NVIDIA A10G datasheet" + _HALVED,
    ),
    Accelerator(
        name="L4", driver_names=("NVIDIA L4",), ec2_name="L4", memory_gb=24, sms=58, gb_per_s=300,
        peak_tflops={"fp32": 30.3, "tf32": 60, "fp16": 121, "bf16": 121, "fp8": 242},
        flop_per_clock=_ADA, top_mhz=2040,
        source="NVIDIA L4 datasheet" + _HALVED,
    ),
    Accelerator(
        name="L40S", driver_names=("NVIDIA L40S",), ec2_name="L40S", memory_gb=48, sms=142, gb_per_s=864,
        peak_tflops={"fp32": 91.6, "tf32": 183, "fp16": 362.05, "bf16": 362.05, "fp8": 733},
        flop_per_clock=_ADA, top_mhz=2520,
        source="NVIDIA L40S datasheet, dense columns",
    ),
    Accelerator(
        name="RTX PRO 4500", driver_names=("NVIDIA RTX PRO 4500 Blackwell Server Edition",), ec2_name="RTX PRO 4500",
        memory_gb=32, sms=82, gb_per_s=800,
        peak_tflops={},
        source="Exxact's review of the Server Edition of 2026-05-20 (800 GB/s, 10,496 cores of 128 an SM); "
        "dense tensor figures were not found",
    ),
    Accelerator(
        name="RTX PRO 6000", driver_names=("NVIDIA RTX PRO 6000 Blackwell Server Edition",),
        ec2_name="RTX PRO Server 6000", memory_gb=96, sms=188, gb_per_s=1597,
        peak_tflops={"fp32": 120},
        source="NVIDIA RTX PRO 6000 Blackwell Server Edition datasheet, which states no dense tensor figure",
    ),
    Accelerator(
        name="A100-40", driver_names=("NVIDIA A100-SXM4-40GB", "A100-SXM4-40GB"), ec2_name="A100", memory_gb=40,
        sms=108, gb_per_s=1555,
        peak_tflops={"fp32": 19.5, "tf32": 156, "fp16": 312, "bf16": 312},
        flop_per_clock=_GA100, top_mhz=1410,
        source="NVIDIA A100 datasheet, 40 GB SXM",
    ),
    Accelerator(
        name="A100-80", driver_names=("NVIDIA A100-SXM4-80GB", "A100-SXM4-80GB"), ec2_name="A100", memory_gb=80,
        sms=108, gb_per_s=2039,
        peak_tflops={"fp32": 19.5, "tf32": 156, "fp16": 312, "bf16": 312},
        flop_per_clock=_GA100, top_mhz=1410,
        source="NVIDIA A100 datasheet, 80 GB SXM",
    ),
    Accelerator(
        name="H100", driver_names=("NVIDIA H100 80GB HBM3",), ec2_name="H100", memory_gb=80, sms=132, gb_per_s=3350,
        peak_tflops={"fp32": 67, "tf32": 494.7, "fp16": 989.4, "bf16": 989.4, "fp8": 1978.9},
        flop_per_clock=_HOPPER, top_mhz=1980,
        source="NVIDIA H100 datasheet, SXM" + _HALVED,
    ),
    Accelerator(
        name="H200", driver_names=("NVIDIA H200",), ec2_name="H200", memory_gb=141, sms=132, gb_per_s=4800,
        peak_tflops={"fp32": 67, "tf32": 494.7, "fp16": 989.4, "bf16": 989.4, "fp8": 1978.9},
        flop_per_clock=_HOPPER, top_mhz=1980,
        source="NVIDIA H200 datasheet, SXM" + _HALVED,
    ),
    Accelerator(
        name="B200", driver_names=("NVIDIA B200",), ec2_name="B200", memory_gb=192, sms=148, gb_per_s=8000,
        peak_tflops={"fp32": 75, "tf32": 1125, "fp16": 2250, "bf16": 2250, "fp8": 4500},
        source="NVIDIA HGX B200 datasheet, an eighth of the board" + _HALVED,
    ),
    Accelerator(
        name="B300", driver_names=("NVIDIA B300 SXM6 AC",), ec2_name="B300", memory_gb=288, sms=None, gb_per_s=8000,
        peak_tflops={"fp32": 75, "tf32": 1125, "fp16": 2250, "bf16": 2250, "fp8": 4500},
        source="NVIDIA HGX B300 datasheet, an eighth of the board" + _HALVED,
    ),
)  # fmt: skip

_BY_DRIVER_NAME = {name: accelerator for accelerator in ACCELERATORS for name in accelerator.driver_names}
_WHOLE = (0.90, 1.10)
"""EC2's memory over the nominal: GB against GiB and what ECC takes. A fraction of a GPU (g6f) lies far below."""


def by_driver_name(name: str) -> Accelerator | None:
    """The device of exactly that name; None for a CPU and for anything else that is not listed."""
    return _BY_DRIVER_NAME.get(name)


def by_instance(kind: InstanceType) -> Accelerator | None:
    """The device that an EC2 type carries; None for a CPU type, for a fraction of a GPU, and for one not listed."""
    for accelerator in ACCELERATORS:
        share = kind.gpu_memory_mib * 2**20 / (accelerator.memory_gb * 1e9)
        if accelerator.ec2_name == kind.gpu and _WHOLE[0] <= share <= _WHOLE[1]:
            return accelerator
    return None
