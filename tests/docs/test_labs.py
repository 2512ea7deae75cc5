"""What the guides of the labs say is what the code does: commands, flags, prices, workloads, error lines."""

import ast
import importlib
import re
import shlex
from collections.abc import Iterator
from dataclasses import fields
from difflib import SequenceMatcher
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn

import pytest
from invoke.exceptions import ParseError
from invoke.parser import Parser as FabParser

import fabfile
from labs.catalog import LABS, Lab
from labs.prices import cost_of
from workloads.command import Parser

ROOT = Path(__file__).parents[2]
PAGES = [0, 1, 2, 3, 4]
PROGRAMS = ("fab", "python", "torchrun", "cdk", "ssh", "sudo", "export", "make", "git", "nvidia-smi", "./setup.sh",
            "pip", "apt-get", "source")  # fmt: skip
CONTEXT = {field.name for field in fields(Lab)} - {"number", "title", "workloads"} | {"notify", "ssh_public_key"}


@cache
def page(number: int) -> str:
    path = ROOT / "docs" / f"lab{number}.md"
    assert path.exists(), f"docs/lab{number}.md is not written yet"
    return path.read_text(encoding="utf-8")


def blocks(text: str) -> list[str]:
    """Code blocks, fenced and indented, with the fence's language as first line."""
    fenced = re.findall(r"^```(.*?)^```", text, re.MULTILINE | re.DOTALL)
    rest = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    return fenced + re.findall(r"(?:^ {4}.*\n)+", rest, re.MULTILINE)


def inline(text: str) -> list[str]:
    rest = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"`([^`\n]+)`", rest)


def commands(text: str, *programs: str) -> list[list[str]]:
    """Every command of these programs that a page tells to type, word by word."""
    lines = [line for block in blocks(text) for line in block.splitlines()] + inline(text)
    found = []
    for line in lines:
        for command in re.split(r"&&|\|\||;|\|", line.strip().removeprefix("$ ")):
            words = command.split()
            if words and words[0] in programs:
                found.append(shlex.split(command, comments=True))
    return found


def section(text: str, title: str) -> str:
    match = re.search(rf"^## [^\n]*{title}[^\n]*\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL | re.IGNORECASE)
    assert match, f"there is no section on {title}"
    return match[1]


@pytest.mark.parametrize("number", PAGES)
def test_a_guide_is_short_and_has_a_diagram(number: int) -> None:
    text = page(number)
    assert len(text.split()) <= 1000
    drawn = [block for block in blocks(text) if block.startswith("mermaid") or re.search(r"[─│┌└▶►→]|--+>", block)]
    assert drawn, "no diagram: a mermaid block, or one of lines and arrows"


@pytest.mark.parametrize("number", PAGES)
def test_a_guide_names_every_workload_of_its_lab(number: int) -> None:
    names = {workload.name for workload in LABS[number].workloads}
    assert {name for name in names if not re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", page(number))} == set()


@pytest.mark.parametrize("number", PAGES)
def test_a_guide_tells_the_price_that_cost_tells(number: int) -> None:
    usd = cost_of(LABS[number]).usd_per_hour
    assert usd is not None
    assert f"{usd:.2f}" in section(page(number), "cost")


@pytest.mark.parametrize("number", PAGES)
def test_every_verb_and_flag_exists(number: int) -> None:
    given = commands(page(number), "fab")
    assert any(words[1:2] == ["run-lab"] for words in given), "a guide says how to run its lab"
    for words in given:
        check_fab(words)


def check_fab(words: list[str]) -> None:
    """Parse a command as `fab` does; a verb alone is a name, and needs none of its words."""
    verbs = fabfile.namespace.to_contexts()
    told = words[1 : words.index("--")] if "--" in words else words[1:]
    if not told or told[0].startswith("--"):
        return
    assert told[0] in {name for verb in verbs for name in (verb.name, *verb.aliases)}, f"fab has no verb {told[0]}"
    if len(told) > 1:
        FabParser(contexts=verbs).parse_argv(told)


class Parsed(Exception):
    """The flags were read: as far as a test goes."""


@pytest.mark.parametrize("number", PAGES)
def test_every_workload_and_flag_exists(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    given = commands(page(number), "python", "torchrun")
    for words in given:
        module, arguments = split_module(words)
        if module.startswith("workloads."):
            check_workload(module, arguments, monkeypatch)


def split_module(words: list[str]) -> tuple[str, list[str]]:
    assert "-m" in words, f"{' '.join(words)}: the guides name modules"
    at = words.index("-m") + 1
    return words[at], words[at + 1 :]


def check_workload(module: str, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the module's own parser read the flags, and stop there."""
    read = Parser.parse_args

    def stop(self: Parser, given: Any = None) -> NoReturn:
        read(self, given)
        raise Parsed

    monkeypatch.setattr(Parser, "parse_args", stop)
    with pytest.raises((Parsed, SystemExit) if "--help" in arguments else Parsed):
        importlib.import_module(module).main(arguments)


@pytest.mark.parametrize("number", PAGES)
def test_every_stack_and_context_key_exists(number: int) -> None:
    for words in commands(page(number), "cdk"):
        stacks = [word for word in words if word.endswith("Stack")]
        assert all(re.fullmatch(r"Lab[0-4]Stack|GuardStack", stack) for stack in stacks)
        given = dict(word.split("=", 1) for flag, word in pairwise(words) if flag == "-c")
        assert set(given) <= CONTEXT
        LABS[number].override(**{key: value for key, value in given.items() if key not in ("notify", "ssh_public_key")})


@pytest.mark.parametrize("number", PAGES)
def test_every_file_that_is_linked_exists(number: int) -> None:
    links = re.findall(r"\]\(([^)#:]+)[^)]*\)", page(number))
    assert [link for link in links if not (ROOT / "docs" / link).exists()] == []


@pytest.mark.parametrize("number", PAGES)
def test_every_error_line_that_is_quoted_is_one_that_the_code_says(number: int) -> None:
    rows = re.findall(r"^\| ?([^|]*)\|", section(page(number), "troubleshooting"), re.MULTILINE)
    quoted = [text for cell in rows for text in inline(cell) if is_error_line(text)]
    assert quoted, "troubleshooting quotes what one sees"
    assert [text for text in quoted if not said_by_code(text)] == []


def is_error_line(text: str) -> bool:
    """Whether this is neither a command nor a flag nor a name: an error line has several words."""
    first = text.split()[0]
    return len(text.split()) > 2 and first not in PROGRAMS and not first.startswith(("-", "/", "~", "python"))


def said_by_code(quoted: str) -> bool:
    """Whether a text of the code says this: as it stands, with its gaps filled, or with some of it left out."""
    left_out = re.compile(".*".join(re.escape(piece.strip()) for piece in quoted.split("…")))
    words = quoted.replace("…", " ").split()
    return (
        any(left_out.search(text) for text in templates())
        or any(_filled(quoted, text) for text in templates())
        or any(_mostly(words, text.split()) for text in templates())
    )


def _filled(quoted: str, text: str) -> bool:
    """Whether the text, its gaps filled, stands in the quotation and is no small part of it."""
    parts = [part.strip() for part in text.split("…")]
    enough = sum(map(len, parts)) >= max(10, 0.4 * len(quoted))
    return enough and re.search(".+?".join(map(re.escape, parts)), quoted) is not None


def _mostly(words: list[str], text: list[str]) -> bool:
    """Whether most words stand in the text in their order, three of them one after the other."""
    blocks = SequenceMatcher(None, words, text, autojunk=False).get_matching_blocks()
    return sum(block.size for block in blocks) >= 0.55 * len(words) and max(block.size for block in blocks) >= 3


@cache
def templates() -> tuple[str, ...]:
    """Every text of several words in the code, its gaps as "…"; cause and remedy of a problem as the one line."""
    rooms = ("labs", "operate", "workloads", "guard", "stacks")
    return tuple(sorted({text for room in rooms for text in _texts(ROOT / room)}))


def _texts(room: Path) -> Iterator[str]:
    for path in room.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            text = _text(node)
            if isinstance(node, ast.Call) and len(node.args) >= 2:
                text = ": ".join(map(_text, node.args[:2]))
            if len(text.split()) > 2 and "\n\n" not in text:
                yield text


def _text(node: ast.AST) -> str:
    """A string, its gaps as "…"; "" for anything else."""
    parts = [node] if isinstance(node, ast.Constant) else node.values if isinstance(node, ast.JoinedStr) else []
    told = (part.value if isinstance(part, ast.Constant) else " … " for part in parts)
    return "".join(text for text in told if isinstance(text, str))


@pytest.mark.parametrize(
    ("quoted", "known"),
    [
        ("problem: no lab was named: write --lab 3, for example", True),
        ("gemm: dtype='fp8' is not in NVIDIA A10G: write some of fp32,tf32,fp16,bf16", True),
        ("generate: out of device memory: choose smaller sizes (…)", True),
        ("the flux capacitor is not charged: charge it", False),
        ("dtype='fp8' is much too small", False),
    ],
)
def test_an_error_line_is_known_by_its_words_whatever_stands_in_its_gaps(quoted: str, known: bool) -> None:
    assert said_by_code(quoted) is known


@pytest.mark.parametrize(
    ("command", "said"),
    [("fab fly --lab 3", "no verb fly"), ("fab report --loudly", "--loudly"), ("fab compare --lab 1 one", "'other'")],
)
def test_a_command_that_does_not_exist_is_seen(command: str, said: str) -> None:
    with pytest.raises((AssertionError, ParseError), match=re.escape(said)):
        check_fab(command.split())


def test_a_flag_that_does_not_exist_is_seen(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        check_workload("workloads.bandwidth", ["--loudly", "3"], monkeypatch)
    assert "--loudly" in capsys.readouterr().err


def test_commands_are_found_in_blocks_and_in_lines() -> None:
    text = "Type `fab up --lab 2` or:\n\n    fab nodes && fab top   # wait\n\n```bash\n$ fab logs | head\n```\n"
    assert commands(text, "fab") == [["fab", "logs"], ["fab", "nodes"], ["fab", "top"], ["fab", "up", "--lab", "2"]]
