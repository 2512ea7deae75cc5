"""Whether a training that survives can save in time, before there is a node: its checkpoint against a spot notice."""

from labs.catalog import Lab, Workload
from labs.disks import limits
from labs.instances import InstanceType
from labs.models import Model, find_model
from labs.survival import NOTICE_S, RESERVE_S, STATE_BYTES, Saving
from operate.check import Check, passed, warned

_NAME = "notice"


def check_notice(lab: Lab) -> list[Check]:
    """For each workload that is started again after a loss: can what it saves be written within the notice?"""
    return [_check(lab, workload) for workload in lab.workloads if workload.restarts]


def saved_model(workload: Workload, kind: InstanceType) -> Model:
    """The model whose state the workload saves: the one it is told, or what workloads/train.py takes itself."""
    named = dict(zip(workload.args, workload.args[1:], strict=False)).get("--model", "")
    return find_model(named or ("mistral-mini" if kind.gpus else "mistral-nano"))


def _check(lab: Lab, workload: Workload) -> Check:
    model = saved_model(workload, lab.instance)
    size = STATE_BYTES * model.parameters
    what = f"{workload.name}'s checkpoint of {model.name}, {size / 1e9:.2f} GB,"
    if lab.storage == "none":
        if lab.nodes == 1:
            return passed(_NAME, f"{what} lies on the node's own disk, and is gone with it")
        return warned(_NAME, f"{what} has no place that all {lab.nodes} nodes share: a lost node loses the training",
                      "write -c storage=scratch")  # fmt: skip
    rate = limits("lustre", instance=lab.instance, ours=True, storage=lab.storage, storage_gib=lab.capacity_gib).write
    assert rate.roof is not None
    saving = Saving(bytes=size, rate=rate.roof.value)
    seen = (f"{what} takes {saving.seconds:.0f} s to /fsx at {saving.rate / 1e6:.0f} MB/s; a spot notice is "
            f"{NOTICE_S:.0f} s, {RESERVE_S:.0f} of them to find out and end")  # fmt: skip
    if saving.fits():
        return passed(_NAME, seen)
    remedy = f"write -c storage_gib= for {saving.rate_needed() / 1e6:.0f} MB/s, or save often: what is lost is --every"
    return warned(_NAME, seen, remedy)
