"""fp8-training: parity is held against the noise between seeds, and an emulated fp8 has no speed."""

from pathlib import Path

import pytest

from labs.models import find_model
from labs.results import Roof, read
from workloads import fp8_training
from workloads.command import CheckFailed
from workloads.device import Device
from workloads.training import float8
from workloads.training.curves import Curve, check_parity, entropy, spread_of
from workloads.training.float8 import fp8_bound
from workloads.training.prediction import Rates

CONFIG = fp8_training.Config(model="mistral-7b", recipe="tensorwise", sequence=4096, batch=1, accumulate=8, steps=8,
                             seeds=2, learning_rate=1e-3, seed=0, threads=1)  # fmt: skip
SMALL = ["--device", "cpu", "--sequence", "16", "--batch", "2", "--steps", "8"]
AT = Rates(products=Roof(value=7e14, source="products"), memory=Roof(value=4e12, source="memory"))


def curve(dtype: str, seed: int, late: float) -> Curve:
    return Curve(dtype=dtype, seed=seed, losses=(7.0, 6.0, 5.0, late), parts=({"forward": 1.0},))


def test_on_a_cpu_only_the_loss_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fp8_training.main([*SMALL, "--out", str(tmp_path)])
    record = read(tmp_path / "fp8-training.node0.json")
    assert [row.name for row in record.measurements] == [
        "loss in bf16, seed 0", "loss in fp8, seed 0", "loss in bf16, seed 1", "bf16 training",
    ]  # fmt: skip
    sixteen, eight, other, speed = record.measurements
    assert record.notes == (f"speed in fp8: not applicable: {record.machine.device} has no fp8 products, they are "
                            "emulated; only the loss tells",)  # fmt: skip
    assert sixteen.config["losses"][0] == pytest.approx(eight.config["losses"][0], rel=5e-3)
    assert sixteen.config["losses"] != eight.config["losses"], "nothing was converted"
    assert sixteen.config["losses"][0] != other.config["losses"][0]
    assert len(speed.samples_s) == 2 * (8 - fp8_training.WARMUP)
    assert sum(span.seconds for span in speed.spans) == pytest.approx(sorted(speed.samples_s)[4] / 2
                                                                     + sorted(speed.samples_s)[5] / 2)  # fmt: skip
    said = capsys.readouterr().out
    assert said.index("predicted loss: the same") < said.index("bf16, seed 0: loss")


def test_a_loss_within_the_spread_of_seeds_is_parity() -> None:
    curves = [curve("bf16", 0, 2.0), curve("fp8", 0, 2.3), curve("bf16", 1, 2.4)]
    assert spread_of(curves) == pytest.approx(0.4)
    assert check_parity(curves) == "loss 2.3000 in fp8, 2.0000 in bf16: +0.3000, allowed ±0.4000"


@pytest.mark.parametrize("late", [2.5, 1.5, float("nan")])
def test_a_loss_outside_it_is_none_even_where_it_is_lower(late: float) -> None:
    curves = [curve("bf16", 0, 2.0), curve("fp8", 0, late), curve("bf16", 1, 2.1)]
    with pytest.raises(CheckFailed, match=r"^loss parity: loss \S+ in fp8, 2.0000 in bf16"):
        check_parity(curves)


def test_a_loss_that_does_not_fall_is_no_parity() -> None:
    curves = [curve("bf16", 0, 6.9), curve("fp8", 0, 6.9), curve("bf16", 1, 6.9)]
    with pytest.raises(CheckFailed, match=r"^loss falls: in fp8 from 7.000 only to 6.900$"):
        check_parity(curves)


def test_another_loss_in_fp8_ends_the_run_without_a_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [curve("bf16", 0, 2.0), curve("fp8", 0, 3.0), curve("bf16", 1, 2.1)]
    monkeypatch.setattr(fp8_training, "measure", lambda config, device: iter(runs))
    with pytest.raises(CheckFailed, match=r"^loss parity: loss 3.0000 in fp8, 2.0000 in bf16: \+1.0000, allowed ±0.1"):
        fp8_training.main([*SMALL, "--out", str(tmp_path)])
    assert list(tmp_path.iterdir()) == []


def test_the_roof_of_fp8_takes_only_the_layers_products_at_its_peak(l4: Device) -> None:
    bound = fp8_bound(l4, find_model("mistral-7b"), 4096)
    assert bound.roof is not None
    layers = 6 * (7_113_539_584 - 134_217_728)
    assert bound.roof.value == pytest.approx(1 / (layers / 242e12 + (45_903_249_408 - layers) / 121e12))


def test_the_gain_is_predicted_by_amdahl_with_what_scaling_costs() -> None:
    slow, fast = (fp8_training.expected(CONFIG, dtype, AT) for dtype in ("bf16", "fp8"))
    layers_s = 6 * (7_113_539_584 - 134_217_728) * 32768 / 7e14
    assert slow["products"] - fast["products"] == pytest.approx(layers_s * (1 - 1 / 1.8))
    assert fast["scaling to fp8"] == pytest.approx(7 * 32 * 69_632 * 32768 / 4e12)
    gain = fp8_training.expected_gain(CONFIG, AT)
    assert gain is not None
    assert gain.value == pytest.approx(sum(slow.values()) / sum(fast.values()))
    assert 1.2 < gain.value < 1.45


def test_the_datas_entropy_by_hand() -> None:
    assert entropy() == pytest.approx(0.7295, abs=1e-3)


def test_without_torchao_one_line_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr(float8, "find_spec", lambda name: None)
    with pytest.raises(SystemExit) as ended:
        fp8_training.main(["--device", "cpu"])
    assert ended.value.code == 2
    assert "torchao is not installed here, and it is what trains in fp8: run pip install" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--recipe", "mx"], "recipe='mx' is not one of torchao's: write tensorwise or rowwise"),
        (["--seeds", "1"], "seeds=1 shows no noise to hold fp8 against: write at least 2"),
        (["--steps", "4"], "steps=4 cannot show a falling loss: write at least 8"),
    ],
)
def test_a_wrong_flag_is_one_line(flags: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        fp8_training.main(["--device", "cpu", *flags])
    assert said in capsys.readouterr().err
