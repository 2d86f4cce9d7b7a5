"""The rules that a machine can check: who imports whom, how long a page is, what an import costs.

Every import statement counts, also one inside a function: where it stands
changes when a module is loaded, not what it depends on.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "l4raw"

LAYERS = ("wire", "core", "engine", "control", "bench", "cli")
"""Each may import those before it."""

WIRE_MAY_IMPORT = {"__future__", "struct", "enum", "typing", "dataclasses", "ipaddress"}
# mmap: the type of a buffer that a flow table is given; none is opened there.
CORE_MAY_IMPORT = WIRE_MAY_IMPORT | {
    *("hashlib", "math", "array", "bisect", "heapq", "itertools", "collections.abc", "mmap"),
}

OTHERS_CODE = {
    "wire": set(),
    "core": set(),
    "engine": {"scapy"},  # to read a capture file
    "control": {"pydantic", "pydantic_core", "pyroute2"},
    "bench": {"matplotlib"},
    "cli": {"click", "rich", "scapy"},
}
"""Packages that are neither Python's nor ours, by the layer that may import them."""

FILE_LINES = 300
FUNCTION_LINES = 60
STEER_LINES = 149

LONGER: dict[str, str] = {
    "l4raw/wire/abi.py": "generated: a list of all that C and Python share",
}

SLOW_TO_IMPORT = ("scapy", "pyroute2", "pydantic", "rich", "cffi", "click")
NOT_FOR_HELP = ("scapy", "pyroute2", "pydantic", "matplotlib")

SOURCES = sorted(path for path in PACKAGE.rglob("*.py") if "__pycache__" not in path.parts)
NETNS = sorted((ROOT / "netns").rglob("*.py"))


class Import(NamedTuple):
    """One imported module, by its full name."""

    path: Path
    line: int
    module: str

    def __str__(self) -> str:
        return f"{self.path.relative_to(ROOT)}:{self.line} imports {self.module}"


def imports(path: Path) -> Iterator[Import]:
    """Every module that `path` imports; for `from a import b` also a.b, when that is one of ours."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            for name in node.names:
                yield Import(path, node.lineno, name.name)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                inside = path.relative_to(ROOT).with_suffix("").parts[: -node.level]
                base = ".".join((*inside, *filter(None, [node.module])))
            yield Import(path, node.lineno, base)
            if base.split(".")[0] == "l4raw":
                for name in node.names:
                    if is_module(f"{base}.{name.name}"):
                        yield Import(path, node.lineno, f"{base}.{name.name}")


def is_module(name: str) -> bool:
    """Whether a dotted name is a module of ours; some have no file in l4raw/."""
    place = ROOT.joinpath(*name.split("."))
    elsewhere = ("l4raw._native", "l4raw._xdp", "l4raw.netns")
    return place.is_dir() or place.with_suffix(".py").exists() or name in elsewhere


def layer(module: str) -> str | None:
    """The layer of a full module name; None outside the six."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[0] == "l4raw" and parts[1] in LAYERS else None


def layer_of(path: Path) -> str | None:
    return layer(".".join(path.relative_to(ROOT).with_suffix("").parts))


ALL = [found for path in SOURCES for found in imports(path)]


def test_there_is_something_to_check() -> None:
    """A wrong path would make every rule below true."""
    assert len(SOURCES) > 5
    assert {layer_of(path) for path in SOURCES} >= set(LAYERS)
    assert {layer(found.module) for found in ALL} >= {"wire", "core"}


def test_layers_import_only_to_the_left() -> None:
    wrong = []
    for found in ALL:
        mine, other = layer_of(found.path), layer(found.module)
        if mine and other and LAYERS.index(other) > LAYERS.index(mine):
            wrong.append(str(found))
    assert not wrong


@pytest.mark.parametrize(("name", "allowed"), [("wire", WIRE_MAY_IMPORT), ("core", CORE_MAY_IMPORT)])
def test_wire_and_core_touch_nothing(name: str, allowed: set[str]) -> None:
    wrong = [
        str(found)
        for found in ALL
        if layer_of(found.path) == name
        and found.module not in allowed
        and found.module.split(".")[0] != "l4raw"
    ]
    assert not wrong


def test_each_layer_imports_only_its_own_dependencies() -> None:
    wrong = []
    for found in ALL:
        mine, package = layer_of(found.path), found.module.split(".")[0]
        foreign = package != "l4raw" and package not in sys.stdlib_module_names
        if foreign and package not in OTHERS_CODE.get(mine or "", set()):
            wrong.append(str(found))
    assert not wrong


@pytest.mark.parametrize(
    ("module", "importer"),
    [("_native", "engine/native.py"), ("_burst", "engine/burst.py"), ("_xdp", "xdp/native.py")],
)
def test_one_module_imports_the_native_part(module: str, importer: str) -> None:
    importers = {found.path for found in ALL if found.module == f"l4raw.{module}"}
    # Those of the engine go through load(), which looks at their ABI.
    named = {path for path in PACKAGE.rglob("*.py") if f'load("l4raw.{module}"' in path.read_text("utf-8")}
    assert importers | named == {PACKAGE / importer}


def test_the_binding_imports_nothing_else_of_l4raw_and_only_engine_and_bench_import_it() -> None:
    wrong = []
    for found in ALL:
        inside = found.path.is_relative_to(PACKAGE / "xdp")
        parts = found.module.split(".")
        if parts[0] == "l4raw" and inside and parts[1:2] not in ([], ["xdp"], ["_xdp"]):
            wrong.append(str(found))
        if parts[:2] == ["l4raw", "xdp"] and not inside and layer_of(found.path) not in ("engine", "bench"):
            wrong.append(str(found))
    assert not wrong
    assert {"xdp", "_xdp"} <= {found.module.split(".")[1] for found in ALL if found.module.count(".")}


def test_tests_and_topologies_are_not_imported_by_the_product() -> None:
    """Only the benchmark may; and the command line, for the demo, not before it is asked for one."""
    wrong = []
    for found in ALL:
        package = found.module.split(".")[0]
        if package in ("tests", "netns"):
            wrong.append(str(found))
        networks = found.module.startswith("l4raw.netns") and layer_of(found.path) != "bench"
        if networks and (layer_of(found.path) != "cli" or found.line in top_level_lines(found.path)):
            wrong.append(str(found))
    assert not wrong


def top_level_lines(path: Path) -> set[int]:
    return {node.lineno for node in ast.parse(path.read_text("utf-8")).body}


def test_topologies_import_nothing_of_the_engine() -> None:
    """A network of namespaces is also there for other programs than ours."""
    found = [each for path in NETNS for each in imports(path)]
    assert not [str(each) for each in found if each.module.startswith("l4raw.engine")]


@pytest.mark.parametrize("path", [*SOURCES, *NETNS], ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_are_short(path: Path) -> None:
    name = path.relative_to(ROOT).as_posix()
    text = path.read_text("utf-8")
    limit = STEER_LINES if name == "l4raw/core/steer.py" else FILE_LINES
    lines = text.count("\n")
    assert lines <= limit or name in LONGER, f"{name} has {lines} lines"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            where = f"{name}:{node.name}"
            assert length <= FUNCTION_LINES or where in LONGER, f"{where} has {length} lines"


def test_exceptions_from_the_length_rule_are_needed() -> None:
    for entry, reason in LONGER.items():
        assert reason
        assert (ROOT / entry.split(":")[0]).exists(), entry


@pytest.mark.parametrize("path", [*SOURCES, *NETNS], ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_opens_with_what_it_is(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text("utf-8"))), path


def test_each_folder_is_a_package() -> None:
    """Without __init__.py a folder would be missing from an installation."""
    assert not [str(path) for path in [*SOURCES, *NETNS] if not path.with_name("__init__.py").exists()]


def loaded_by(statement: str) -> set[str]:
    """Top-level packages that are loaded after `statement` in a new interpreter."""
    code = f"import sys; before = set(sys.modules); {statement}; print(*set(sys.modules) - before)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return {name.split(".")[0] for name in done.stdout.split()}


def test_import_l4raw_loads_nothing_else() -> None:
    assert not loaded_by("import l4raw") - {"l4raw", "__future__"}


@pytest.mark.parametrize("module", ["l4raw.core.steer", "l4raw.engine.raw", "l4raw.engine.replay"])
def test_the_packet_path_loads_no_dependency(module: str) -> None:
    assert not loaded_by(f"import {module}") & set(SLOW_TO_IMPORT)


def test_help_loads_no_slow_dependency() -> None:
    assert not loaded_by("import l4raw.cli.main") & set(NOT_FOR_HELP)
