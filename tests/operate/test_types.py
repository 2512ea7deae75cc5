"""The file of instance types beside what EC2 says of them."""

import gzip
import json
from pathlib import Path
from typing import Any

import moto
import pytest

from labs.instances import instance_types
from operate import laptop, types
from operate.screen import Screen
from operate.types import compare, refresh, row_of, show_types, write
from tests.operate.scripted import Refusal, ScriptedAccount

RECORDED = json.loads(gzip.decompress(
    (Path(moto.__file__).parent / "ec2/resources/instance_types.json.gz").read_bytes()
))  # fmt: skip
"""DescribeInstanceTypes as moto recorded it from AWS."""
KNOWN = {"gr6f.4xlarge is new"}
"""Left out of the file on purpose: no list price of it is known, and it would be said not to be sold."""


def account(described: dict[str, Any] | None = None, **more: Any) -> ScriptedAccount:
    answer = {"InstanceTypes": list((RECORDED if described is None else described).values())}
    return ScriptedAccount(
        {"ec2:DescribeInstanceTypes": answer, "pricing:GetProducts": Refusal("AccessDenied"), **more}
    )


@pytest.fixture(autouse=True)
def clone(tmp_path, monkeypatch):
    """A clone of the test's own, with the real file in it."""
    (tmp_path / "labs").mkdir()
    (tmp_path / "labs" / "instances.json").write_bytes((laptop.ROOT / "labs" / "instances.json").read_bytes())
    monkeypatch.setattr(laptop, "ROOT", tmp_path)
    return tmp_path


def test_the_file_is_what_ec2_said() -> None:
    assert {str(change) for change in compare(account()).changes} == KNOWN


def test_every_difference_is_shown_field_by_field() -> None:
    told = {name: row for name, row in RECORDED.items() if name != "p4d.24xlarge"}
    told["g6.xlarge"] = {**told["g6.xlarge"], "VCpuInfo": {"DefaultVCpus": 5}}
    changes = [str(change) for change in compare(account(told)).changes if str(change) not in KNOWN]
    assert changes == ["g6.xlarge vcpus: 4 -> 5", "p4d.24xlarge is not offered in this region"]


def test_what_cannot_run_a_lab_is_not_asked_for() -> None:
    assert "g5g.xlarge" in RECORDED, "Arm"
    like = RECORDED["g6.xlarge"]
    xen = {**like, "InstanceType": "p3.2xlarge", "Hypervisor": "xen"}
    amd = {**like, "InstanceType": "g4ad.xlarge", "GpuInfo": {"Gpus": [{**like["GpuInfo"]["Gpus"][0],
           "Manufacturer": "AMD"}]}}  # fmt: skip
    found = compare(account({**RECORDED, "p3.2xlarge": xen, "g4ad.xlarge": amd})).document["types"]
    assert not {"p3.2xlarge", "g5g.xlarge", "g4ad.xlarge"} & set(found)


def test_written_it_reads_back_and_keeps_prices_and_what_the_region_does_not_offer(clone) -> None:
    before = json.loads((clone / "labs" / "instances.json").read_text())
    told = {name: row for name, row in RECORDED.items() if not name.startswith("p")}
    path = write(compare(account(told)).document)
    after = json.loads(path.read_text())
    assert after["types"]["p5.48xlarge"] == before["types"]["p5.48xlarge"]
    assert {name: row["usd_per_hour"] for name, row in after["types"].items() if name in before["types"]} == {
        name: row["usd_per_hour"] for name, row in before["types"].items()
    }
    assert (after["source"], after["date"]) == ("EC2 DescribeInstanceTypes in us-east-1", "2026-11-20")
    assert after["price_date"] == before["price_date"]
    types.write(before)
    assert path.read_text() == (Path(__file__).parents[2] / "labs" / "instances.json").read_text(), "one line a type"


def test_a_price_that_the_price_list_tells_is_refreshed() -> None:
    offer = {"terms": {"OnDemand": {"a": {"priceDimensions": {"b": {"unit": "Hrs", "pricePerUnit": {"USD": "0.9"}}}}}}}
    listed = {"PriceList": [json.dumps(offer)]}
    found = compare(account({"g6.xlarge": RECORDED["g6.xlarge"]}, **{"pricing:GetProducts": listed}))
    assert "g6.xlarge usd_per_hour: 0.8048 -> 0.9" in map(str, found.changes)
    assert found.document["price_source"] == "AWS Price List, us-east-1, on demand, Linux"


def test_a_price_list_that_does_not_answer_leaves_prices_and_says_so() -> None:
    assert compare(account()).notes == ("the Price List did not answer (AccessDenied): prices of the table",)


def test_another_regions_prices_are_not_mixed_in() -> None:
    there = account()
    there.region = "eu-west-1"
    found = compare(there)
    assert "prices are us-east-1's and were left: export AWS_REGION to refresh them" in found.notes


def test_without_write_nothing_is_written(clone, capsys) -> None:
    before = (clone / "labs" / "instances.json").read_text()
    refresh(account(), Screen(), keep=False, json=False)
    assert (clone / "labs" / "instances.json").read_text() == before
    assert "1 difference to EC2 in us-east-1, 2026-11-20: not written, for --write was not given" in (
        capsys.readouterr().out
    )
    refresh(account(), Screen(json=True), keep=True, json=True)
    assert json.loads(capsys.readouterr().out)["written"] == str(clone / "labs" / "instances.json")
    refresh(account(), Screen(), keep=False, json=False)
    assert "nothing differs from EC2 in us-east-1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "gbps"),
    [("4x 100 Gigabit", 400), ("Up to 12.5 Gigabit", 12.5), ("100 Gigabit", 100), ("Low to Moderate", 5)],
)
def test_the_network_rate_is_the_figure_that_aws_names(words, gbps) -> None:
    item = RECORDED["g6.xlarge"]
    assert row_of({**item, "NetworkInfo": {**item["NetworkInfo"], "NetworkPerformance": words}})["gbps"] == gbps


def test_types_are_listed_without_an_account(capsys) -> None:
    show_types(Screen(), json=False)
    said = capsys.readouterr().out
    assert all(name in said for name in instance_types())
    show_types(Screen(json=True), json=True)
    assert json.loads(capsys.readouterr().out)["p5.48xlarge"]["efas"] == 32
