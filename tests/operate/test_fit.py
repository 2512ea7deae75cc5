"""fab fits: every way on the lab's GPUs, what follows, and an exit code that says whether anything fits."""

import json

import pytest

from labs.catalog import LABS
from labs.instances import instance_type
from operate.fit import read_question, show_fits, trained_model, verdicts
from operate.problem import Problem
from operate.screen import Screen


def ask(**given: str):
    return read_question(**({"model": "mistral-7b", "purpose": "", "batch": "", "sequence": ""} | given))


def test_lab_2_trains_7b_sharded_with_bf16_states(capsys: pytest.CaptureFixture[str]) -> None:
    show_fits(LABS[2], ask(), Screen(), json=False)
    shown = capsys.readouterr().out
    assert "AdamW in fp32 keeps 16 B × 7,248,023,552 parameters = 108.0 GiB in all" in shown
    assert "trains on 4 × L4 of a g6.12xlarge: fsdp over 4, bf16 states, recomputed, 18.5 GiB of 22.4" in shown
    assert "mistral-7b serves on 4 × L4 of a g6.12xlarge: one device, 16 bits a weight" in shown


def test_what_fits_nowhere_ends_in_a_problem_that_names_a_type_where_it_does(capsys) -> None:
    with pytest.raises(Problem, match=r"the cheapest node that does: --context instance_type=\S+ \(\$[0-9.]+/h by "):
        show_fits(LABS[0], ask(purpose="train"), Screen(), json=False)
    with pytest.raises(Problem, match="no single node does: write fewer tokens, more nodes or a smaller model"):
        show_fits(LABS[0], ask(purpose="serve", batch="1000000"), Screen(), json=False)


def test_its_json_is_one_document_with_every_byte(capsys: pytest.CaptureFixture[str]) -> None:
    show_fits(LABS[2], ask(purpose="serve"), Screen(json=True), json=True)
    told = json.loads(capsys.readouterr().out)
    assert [way["way"] for way in told["ways"]] == ["one device, 16 bits a weight", "tensor over 4, 16 bits a weight"]
    for way in told["ways"]:
        assert way["bytes"] == sum(way["parts"].values()) < way["device_bytes"]


def test_every_type_of_a_fleet_is_judged() -> None:
    places = {verdict.place.name for verdict in verdicts(LABS[4], ask(purpose="serve"))}
    assert places == {"4 × L40S of a g6e.12xlarge", "4 × L4 of a g6.12xlarge"}


def test_the_model_that_ddp_takes_by_itself_is_the_one_that_is_checked() -> None:
    from workloads.parallel.settings import BATCH, default_model  # loads torch: only where it is needed

    class Gpu:
        cuda = True

        def __init__(self, memory_bytes: int) -> None:
            self.memory_bytes = memory_bytes

    for name in ("g4dn.xlarge", "g6.12xlarge", "g6f.large", "p5.48xlarge"):
        kind = instance_type(name)
        assert trained_model(kind).name == default_model(Gpu(kind.gpu_memory_mib << 20))  # type: ignore[arg-type]
    assert BATCH == 2


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"model": "gpt-2"}, "model='gpt-2' does not exist: write one of mistral-7b"),
        ({"purpose": "both"}, "purpose='both' is not allowed: write train or serve"),
        ({"batch": "0"}, "batch='0' is not a whole number of at least 1: write for example --batch 2048"),
        ({"sequence": "long"}, "sequence='long' is not a whole number"),
    ],
)
def test_a_wrong_flag_names_what_to_write(given: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        ask(**given)
