"""The report as a browser sees it: laid out, nothing asked of the network, no complaint on the console."""

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from operate.report import write_report
from tests.operate.made_run import collectives, ddp, gemm, generate, write_run

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage",
    "--enable-logging=stderr", "--virtual-time-budget=2000", "--window-size=1200,900", "--dump-dom",
)  # fmt: skip

PROBE = """
<script>
addEventListener("load", () => {
  const box = element => {
    const {width, height} = element.getBoundingClientRect();
    return {tag: element.tagName.toLowerCase(), id: element.id || element.className.baseVal || "", width, height};
  };
  const look = frame => {
    const page = frame.contentDocument, all = page.querySelectorAll("figure, table, figure svg, tbody tr, h1");
    return {
      boxes: [...all].map(box),
      overflow: page.documentElement.scrollWidth - frame.clientWidth,
      asked: frame.contentWindow.performance.getEntriesByType("resource").map(entry => entry.name),
    };
  };
  const told = Object.fromEntries([...document.querySelectorAll("iframe")].map(frame => [frame.id, look(frame)]));
  document.body.innerHTML = "<pre id=told></pre>";
  document.getElementById("told").textContent = JSON.stringify(told);
});
</script>
"""


def browser() -> str:
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        pytest.fail(f"none of {', '.join(BROWSERS)} is here: run ./setup.sh tests, or install chromium yourself")
    return found


QUIZ = """
<script>
addEventListener("load", () => {
  const frame = document.querySelector("iframe"), page = frame.contentDocument;
  const answer = page.querySelector("#generate .answer"), told = [];
  const look = () => told.push(frame.contentWindow.getComputedStyle(answer).display !== "none");
  look();
  for (const question of page.querySelectorAll("#generate fieldset")) {
    question.querySelector("input").click();
    look();
  }
  document.body.innerHTML = "<pre id=told></pre>";
  document.getElementById("told").textContent = JSON.stringify(told);
});
</script>
"""


def told_by(folder: Path, frames: str, probe: str) -> tuple[Any, str]:
    """What a script beside frames of the report found out, and the browser's stderr."""
    outside = folder / "outside.html"
    outside.write_text(f"<!doctype html><meta charset=utf-8><link rel=icon href='data:,'><body>{frames}{probe}")
    profile = f"--user-data-dir={folder / 'profile'}"
    command = [browser(), *FLAGS, "--allow-file-access-from-files", profile, outside.as_uri()]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    told = re.search(r'<pre id="told">(.*?)</pre>', ended.stdout, flags=re.DOTALL)
    assert told, ended.stdout[-2000:] + ended.stderr[-2000:]
    return json.loads(unescape(told[1])), ended.stderr


def test_a_measurement_shows_when_the_last_question_of_its_workload_has_an_answer(tmp_path: Path) -> None:
    page = write_report(write_run(tmp_path, [generate()]), quiz=True)
    shown, _ = told_by(tmp_path, f'<iframe src="{page.as_uri()}" style="width: 1100px"></iframe>', QUIZ)
    assert len(shown) > 2
    assert shown == [False] * (len(shown) - 1) + [True]


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a headless browser tells of the report in a wide and in a narrow window."""
    folder = tmp_path_factory.mktemp("browser")
    exits: dict[str, dict[str, int | None]] = {
        name: {"node0": 0, "node1": 0} for name in ("collectives", "ddp", "gemm", "generate")
    }
    exits["generate"]["node1"] = 1
    report = write_report(write_run(folder, [collectives(), ddp(), gemm("node0"), gemm("node1"), generate()], exits))
    frames = "".join(
        f'<iframe id="{name}" src="{report.as_uri()}" style="width: {width}px; height: 800px; border: 0"></iframe>'
        for name, width in (("wide", 1100), ("phone", 400))
    )
    told, stderr = told_by(folder, frames, PROBE)
    return {"stderr": stderr, **told}


@pytest.mark.parametrize("window", ["wide", "phone"])
def test_figures_and_tables_are_laid_out(seen: dict[str, Any], window: str) -> None:
    boxes = seen[window]["boxes"]
    figures = {box["id"]: box for box in boxes if box["tag"] == "figure"}
    assert set(figures) == {"figure-roofline", "figure-collectives", "figure-generation", "figure-training"}
    least = {"wide": 800, "phone": 340}[window]
    assert all(box["width"] >= least and box["height"] >= 200 for box in figures.values())
    tables = [box for box in boxes if box["tag"] == "table"]
    assert len(tables) == 5, "one of each workload, and what others published of gemm on an L4"
    assert all(box["width"] >= least and box["height"] >= 100 for box in tables)
    assert all(box["height"] > 15 for box in boxes if box["tag"] == "tr")


@pytest.mark.parametrize(("window", "shown"), [("wide", "wide"), ("phone", "narrow")])
def test_each_window_gets_its_own_drawing(seen: dict[str, Any], window: str, shown: str) -> None:
    drawings = [box for box in seen[window]["boxes"] if box["tag"] == "svg"]
    assert len(drawings) == 8
    assert {box["id"] for box in drawings if box["width"] > 0} == {shown}


@pytest.mark.parametrize("window", ["wide", "phone"])
def test_nothing_needs_scrolling_sideways(seen: dict[str, Any], window: str) -> None:
    assert seen[window]["overflow"] <= 0


@pytest.mark.parametrize("window", ["wide", "phone"])
def test_nothing_is_asked_of_the_network(seen: dict[str, Any], window: str) -> None:
    assert seen[window]["asked"] == []


def test_the_console_stays_silent(seen: dict[str, Any]) -> None:
    assert [line for line in seen["stderr"].splitlines() if "CONSOLE" in line] == []
