"""The documents against the code: computed blocks, tables, links, paths, commands."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from pydantic import BaseModel

from l4raw.cli.main import COMMANDS, cli
from l4raw.control import shape, shape_check, shape_limits
from l4raw.control.codes import REGISTRY
from l4raw.control.config import parse as parse_config
from l4raw.control.shape_table import Table
from l4raw.core import model
from l4raw.core.flows import FlowTable
from l4raw.core.hashing import hash_key
from l4raw.wire import abi
from tests.computed import BLOCK, COMPUTED, DOCS, filled

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("native", "netns", "tests")
PAGES = [*DOCS, *sorted(ROOT.glob("*.md")), *(ROOT / folder / "README.md" for folder in FOLDERS)]
CONFIGURATION = (ROOT / "docs" / "configuration.md").read_text("utf-8")


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_computed_blocks_are_what_the_code_does(page: Path) -> None:
    text = page.read_text("utf-8")
    assert filled(text) == text
    assert text.count("<!-- computed:") == len(BLOCK.findall(text)), "a block has no <!-- end -->"


def test_every_computation_is_in_a_page() -> None:
    used = {match["name"] for page in DOCS for match in BLOCK.finditer(page.read_text("utf-8"))}
    assert used == set(COMPUTED)


def rows(text: str) -> list[list[str]]:
    """The cells of every row of Markdown tables, heads and rules left out."""
    lines = [line for line in text.splitlines() if line.startswith("| ") and not line.startswith("| ---")]
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    return [row for row in cells if row[0].startswith("`")]


def test_verdicts_are_those_of_the_header() -> None:
    text = (ROOT / "docs" / "verdicts.md").read_text("utf-8")
    written = [(row[0].strip("`"), row[1]) for row in rows(text)]
    assert written == list(zip(abi.VERDICT_NAMES, abi.VERDICT_SENTENCES, strict=True))
    assert all(len(row) == 3 and row[2] for row in rows(text)), "every verdict says what to make of it"


TABLES_OF_FILE: dict[str, type[BaseModel]] = {
    "`[lb]`": shape.Lb,
    "`[[service]]`": shape.Service,
    "`backends`": shape.Backend,
    "`snat`": shape.Snat,
    "`timeouts`": shape.Timeouts,
    "`acl`": shape_limits.Acl,
    "`check`": shape_check.Check,
    "`tunnel`": shape.Tunnel,
    "`limits`": shape_limits.Limits,
}


def section(title: str) -> str:
    found = re.search(rf"^## {re.escape(title)}$(.*?)(?=^## |\Z)", CONFIGURATION, re.MULTILINE | re.DOTALL)
    assert found, f"docs/configuration.md has no section {title}"
    return found[1]


@pytest.mark.parametrize("title", TABLES_OF_FILE)
def test_every_key_is_documented_with_its_default(title: str) -> None:
    table = TABLES_OF_FILE[title]
    documented = {row[0].strip("`"): row for row in rows(section(title))}
    assert list(documented) == list(table.model_fields)
    for key, row in documented.items():
        field = table.model_fields[key]
        required = field.is_required() or key == "backends"
        assert (row[2] == "required") == required, key
        if not required and row[2].startswith("`"):
            example = accepted(title, key, row[2].strip("`"))
            plain = accepted(title, None, "")
            assert example == plain, f"{key}: the default is not {row[2]}"
        accepted(title, key, row[3].strip("`").partition(" = ")[2])
        assert row[3].startswith(f"`{key} = ")


def accepted(title: str, key: str | None, value: str) -> object:
    """The configuration with this value of `key`, everything else as short as can be. Raises if refused."""
    parts: dict[str, dict[str, str]] = {
        "`[lb]`": {"interfaces": '["eth1"]'},
        "`[[service]]`": {"name": '"web"', "vip": '"10.77.0.100:80/tcp"', "mode": '"nat"'},
        "`backends`": {"name": '"b1"', "address": '"10.77.1.11"'},
        "`snat`": {"address": '"10.77.1.5"'},
        "`timeouts`": {},
        "`acl`": {},
        "`check`": {},
        "`tunnel`": {},
        "`limits`": {},
    }
    if "tunnel" in (title.strip("`"), key):
        parts["`[[service]]`"]["mode"] = '"dsr-gue"'
    if value == '"track-changes"':
        parts["`[[service]]`"]["mode"] = '"dsr-l2"'
    if key:
        parts[title][key] = value
    if "`snat`" in (title, f"`{key}`"):
        parts["`[[service]]`"]["mode"] = '"fullnat"'

    def inline(part: dict[str, str]) -> str:
        return "{ " + ", ".join(f"{name} = {text}" for name, text in part.items()) + " }"

    service = parts["`[[service]]`"]
    service.setdefault("backends", f"[{inline(parts['`backends`'])}]")
    for name in ("timeouts", "acl", "tunnel", "limits"):
        if parts[f"`{name}`"] or name != "tunnel":
            service.setdefault(name, inline(parts[f"`{name}`"]))
    if title == "`snat`":
        service["snat"] = f"[{inline(parts[title])}]"
    if title == "`check`":
        service.setdefault("check", inline(parts["`check`"]))
    lines = ["[lb]", *(f"{name} = {text}" for name, text in parts["`[lb]`"].items()), "[[service]]"]
    lines += [f"{name} = {text}" for name, text in service.items()]
    return parse_config("\n".join(lines), Path("docs/configuration.md")).config


@pytest.mark.parametrize("word", [*model.Mode, *model.Scheduler], ids=str)
def test_every_mode_and_scheduler_is_documented(word: str) -> None:
    for name in ("configuration.md", "supported.md"):
        assert f"`{word}`" in (ROOT / "docs" / name).read_text("utf-8"), name


@pytest.mark.parametrize("table", TABLES_OF_FILE.values(), ids=lambda table: table.__name__)
def test_keys_of_the_contract_that_are_refused_are_listed(table: type[Table]) -> None:
    omitted = (ROOT / "docs" / "supported.md").read_text("utf-8")
    assert [key for key in table.later if f"`{key}`" not in omitted] == []


def test_how_many_flows_fit_is_said_everywhere_as_it_is() -> None:
    flows = FlowTable(bytearray(64 << 20), hash_key(b"")).capacity
    assert f"64MiB hold {flows:,} DSR or {flows // 2:,} NAT flows" in CONFIGURATION
    assert f"64MiB hold {flows:,} DSR flows" in REGISTRY["L4R-307"].fix


def test_the_run_folders_are_documented() -> None:
    variables = section("Variables")
    for name in ("`/run/l4raw`", "`$XDG_RUNTIME_DIR/l4raw`", "`/tmp/l4raw-UID`"):
        assert name in variables
    assert "same run folder" in variables


def fences(text: str, language: str) -> Iterator[str]:
    yield from re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def prose(text: str) -> str:
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """As GitHub makes them of headings."""
    heads = re.findall(r"^#+ (.+)$", prose(page.read_text("utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_and_paths_resolve(page: Path) -> None:
    text = prose(page.read_text("utf-8"))
    wrong = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, anchor = target.partition("#")
        if path.startswith(("http://", "https://")):
            continue
        found = (page.parent / path).resolve() if path else page
        if not found.exists() or (anchor and anchor not in anchors(found)):
            wrong.append(target)
    for path in re.findall(r"`((?:l4raw|native|netns|tests|docs)/[\w./-]*)`", text):
        if not (ROOT / path).exists():
            wrong.append(path)
    assert not wrong


def test_every_document_is_in_the_index() -> None:
    index = (ROOT / "docs" / "index.md").read_text("utf-8")
    missing = [page.name for page in DOCS if page.name != "index.md" and f"{page.name})" not in index]
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_toml_examples_are_accepted(page: Path) -> None:
    for example in fences(page.read_text("utf-8"), "toml"):
        tomllib.loads(example)
        parse_config(example, page)


def commands(text: str) -> Iterator[list[str]]:
    """Each command of the `sh` blocks, without sudo, comment, pipe and redirection."""
    for block in fences(text, "sh"):
        for line in block.replace("\\\n", " ").splitlines():
            for part in re.split(r"\s*(?:&&|\|)\s*", line):
                words = shlex.split(part, comments=True)
                yield [word for word in words if word != "sudo"]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_commands_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    text = page.read_text("utf-8")
    inline = [shlex.split(found) for found in re.findall(r"`(?:sudo )?((?:make|l4raw) [^`]*)`", prose(text))]
    for words in [*commands(text), *inline]:
        if not words:
            continue
        if words[0] == "make":
            assert {word for word in words[1:] if "=" not in word} <= targets, words
        elif words[0] == "l4raw":
            known = {option for parameter in cli.params for option in parameter.opts}
            names = [word for word in words[1:] if word in COMMANDS]
            if names:
                with click.Context(cli) as context:
                    command = cli.get_command(context, names[0])
                assert command is not None
                known |= {option for parameter in command.params for option in parameter.opts}
            asked = {word.partition("=")[0] for word in words[1:] if word.startswith("-")} - {
                "--help",
                "--version",
            }
            assert asked <= known, words
            assert names or asked or words[1:] in (["--help"], ["--version"]), words


def test_every_event_of_up_is_described() -> None:
    source = (ROOT / "l4raw/cli/foreground.py").read_text()
    rows = re.findall(r"^\| `(\w+)` \|", (ROOT / "docs/json.md").read_text(), re.MULTILINE)
    assert sorted(rows) == sorted(set(re.findall(r'_event\(\s*"(\w+)"', source)))
