"""The command line as a whole: subcommands, usage, exit codes, unexpected errors, what an import costs."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from l4raw import __version__
from l4raw.cli import main
from l4raw.control.errors import L4Error

ROOT = Path(__file__).resolve().parents[2]

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs `l4raw` in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))

    def run(*args: str) -> Result:
        return CliRunner().invoke(main.cli, args)

    return run


def test_help_lists_every_command(run: Run) -> None:
    result = run("--help")
    assert result.exit_code == 0
    for name, (_, text) in main.COMMANDS.items():
        assert re.search(rf"^  {name} +{re.escape(text[:20])}", result.stdout, re.MULTILINE)


def test_the_help_of_a_command_does_not_repeat_the_global_options(run: Run) -> None:
    text = run("check", "--help").stdout
    assert "--json" not in text
    assert "Global options" in text


@pytest.mark.parametrize("name", main.COMMANDS)
def test_every_command_has_a_module(name: str) -> None:
    module = main.COMMANDS[name][0]
    if find_spec(module) is None and name in NOT_WRITTEN_YET:
        return
    assert isinstance(import_module(module).command, click.Command)


NOT_WRITTEN_YET: set[str] = set()


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("chekc",), 'No such command "chekc". Did you mean "check"?'),
        (("qqq",), "There are: up, down, check"),
        (("check", "--jsn"), "--jsn"),
        (("check", "a", "b"), "unexpected extra argument"),
        (("up", "--trace", "-1"), "-1 is not in the range x>=0"),
    ],
)
def test_wrong_usage_is_2(run: Run, args: tuple[str, ...], words: str) -> None:
    result = run(*args)
    assert result.exit_code == 2
    assert words in result.stderr


# What a command may raise


@pytest.fixture
def raising(monkeypatch: pytest.MonkeyPatch, run: Run) -> Run:
    """Runs `l4raw explain x` with an explainer that raises the given exception."""

    def raising(error: BaseException, *args: str) -> Result:
        def explainer(text: str, state: object) -> bool:
            raise error

        monkeypatch.setattr("l4raw.cli.explain.EXPLAINERS", (explainer,))
        return run("explain", "x", *args)

    return raising


@pytest.mark.parametrize(
    ("code", "exit_code"), [("L4R-203", 4), ("L4R-301", 5), ("L4R-401", 6), ("L4R-402", 1)]
)
def test_the_exit_code_of_an_error(raising: Run, code: str, exit_code: int) -> None:
    result = raising(L4Error(code, what="so it is", where="eth1"))
    assert result.exit_code == exit_code
    assert result.stderr.startswith(f"error {code}: so it is (eth1)\nwhy: ")
    assert "Traceback" not in result.stderr


def test_an_unexpected_error_is_one_line_and_a_file(raising: Run, tmp_path: Path) -> None:
    result = raising(ZeroDivisionError("by zero"))
    assert result.exit_code == 1
    (crash,) = (tmp_path / "state" / "l4raw").glob("crash-*.txt")
    assert result.stderr == (
        f"error L4R-402: unexpected ZeroDivisionError: by zero; the traceback is in {crash}\n"
    )
    text = crash.read_text()
    assert f"l4raw {__version__}" in text
    assert "Traceback (most recent call last)" in text
    assert text.endswith("ZeroDivisionError: by zero\n")
    assert crash.stat().st_mode & 0o777 == 0o600


def test_an_unexpected_error_as_json(raising: Run) -> None:
    result = raising(ZeroDivisionError("by zero"), "--json")
    assert result.exit_code == 1
    assert json.loads(result.stderr)["errors"][0]["code"] == "L4R-402"


def test_debug_shows_the_traceback(raising: Run) -> None:
    assert "Traceback (most recent call last)" in raising(ZeroDivisionError(), "--debug").stderr


def test_no_place_for_the_crash_file(raising: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    result = raising(ZeroDivisionError("by zero"))
    assert result.exit_code == 1
    assert "no crash file could be written (Not a directory); run it again with --debug" in result.stderr
    errors = json.loads(raising(ZeroDivisionError("by zero"), "--json").stderr)["errors"]
    assert "no crash file could be written" in errors[0]["what"]
    assert errors[0]["fix"] == "run it again with --debug, and report what it prints"


def test_the_help_of_up_says_what_a_dry_run_needs_and_does(run: Run) -> None:
    text = " ".join(run("up", "--help").stdout.split())
    assert "Change nothing, and print the plan. Needs root: it looks at the interfaces" in text
    assert "asks by ARP who has the VIPs" in text
    assert "does not look for the backends" in text
    assert "NAME@INODE" in text
    assert "--plain is for --dry-run" in text


def test_interrupted(raising: Run) -> None:
    assert raising(KeyboardInterrupt()).exit_code == 130


def test_a_reader_that_left_is_no_crash(raising: Run, tmp_path: Path) -> None:
    assert raising(BrokenPipeError(32, "Broken pipe")).exit_code == 1
    assert not (tmp_path / "state").exists()


# Processes


def python(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *args], capture_output=True, text=True, cwd=ROOT, check=False)


def test_help_imports_nothing_heavy() -> None:
    done = python("-X", "importtime", "-m", "l4raw", "--help")
    assert done.returncode == 0
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert "click" in imported
    assert imported.isdisjoint({"scapy", "pyroute2", "pydantic", "pydantic_core", "rich", "cffi"})


def test_the_package_imports_nothing() -> None:
    done = python(
        "-c", "import sys; before = set(sys.modules); import l4raw; print(set(sys.modules) - before)"
    )
    assert done.stdout == "{'l4raw'}\n"


def test_module_and_exit_code_as_a_process() -> None:
    done = python("-m", "l4raw", "check", "no-such-file.toml")
    assert done.returncode == 3
    assert done.stderr.startswith("error L4R-102:")
