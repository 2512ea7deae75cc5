"""preflight says whether what a training saves can be written within a spot notice."""

from dataclasses import replace

from labs.catalog import LABS, Workload
from labs.survival import NOTICE_S
from operate.check import Check
from operate.saving import check_notice

LAB = LABS[3]


def with_model(model: str, **given: object) -> Check:
    train = Workload(name="train", module="workloads.train", scope="cluster", restarts=1, args=("--model", model))
    return check_notice(replace(LAB, workloads=(train,)).override(**given))[0]


def test_what_fits_passes_with_its_arithmetic() -> None:
    (check,) = check_notice(LAB)
    assert check.verdict == "pass"
    assert check.seen == ("train's checkpoint of mistral-mini, 2.11 GB, takes 18 s to /fsx at 117 MB/s; a spot notice "
                          f"is {NOTICE_S:.0f} s, 20 of them to find out and end")  # fmt: skip


def test_what_does_not_fit_is_a_warning_with_the_rate_that_it_needs() -> None:
    check = with_model("mistral-7b")
    assert check.verdict == "warn"
    assert "86.98 GB, takes 742 s to /fsx at 117 MB/s" in check.seen
    assert check.remedy.startswith("write -c storage_gib= for 870 MB/s, or save often")


def test_a_larger_file_system_makes_it_fit() -> None:
    assert with_model("mistral-tiny").verdict == "warn"
    assert with_model("mistral-tiny", storage_gib=2400).verdict == "pass"


def test_without_a_shared_place_a_lost_node_loses_all() -> None:
    (check,) = check_notice(LAB.override(storage="none"))
    assert (check.verdict, check.remedy) == ("warn", "write -c storage=scratch")
    assert "no place that all 2 nodes share" in check.seen
    (check,) = check_notice(LAB.override(storage="none", nodes=1))
    assert check.verdict == "pass"


def test_a_lab_whose_workloads_start_once_has_nothing_to_save() -> None:
    assert check_notice(LABS[1]) == []
