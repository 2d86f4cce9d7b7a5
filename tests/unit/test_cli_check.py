"""The command line: `check` and its neighbours, streams, exit codes, unexpected errors."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from l4raw import __version__
from l4raw.cli import main
from l4raw.control.codes import REGISTRY

ROOT = Path(__file__).resolve().parents[2]

GOOD = """\
[lb]
interfaces = ["eth1"]
[[service]]
name = "web"
vip = "10.77.0.100:80/tcp"
mode = "dsr-l2"
backends = [{ name = "b1", address = "10.77.0.11" }, { name = "b2", address = "10.77.0.12" }]
"""
WARNS = GOOD.replace("dsr-l2", "nat")
FIVE = """\
[lb]
interface = "eth1"
interfaces = ["eth1"]
[[service]]
name = "web"
vip = "10.77.0.100:70000/tcp"
mode = "drs-l2"
backends = [{ name = "b1", address = "10.77.0.256" }]
[[service]]
name = "dns"
vip = "10.77.0.100:53/udp"
mode = "nat"
backends = []
"""

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs `l4raw` in a folder with good.toml, warns.toml and five.toml."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("L4RAW_CONFIG", raising=False)
    monkeypatch.setattr("l4raw.control.config.SYSTEM", tmp_path / "etc.toml")
    for name, text in (("good", GOOD), ("warns", WARNS), ("five", FIVE)):
        Path(f"{name}.toml").write_text(text)

    def run(*args: str, color: bool = False) -> Result:
        return CliRunner().invoke(main.cli, args, color=color)

    return run


def test_a_good_file(run: Run) -> None:
    result = run("check", "good.toml")
    assert result.exit_code == 0
    assert result.stdout == "good.toml is right: 1 service, 2 backends, one-arm on eth1\n"
    assert result.stderr == ""


def test_a_warning_goes_to_stderr_and_the_exit_code_is_0(run: Run) -> None:
    result = run("check", "warns.toml")
    assert result.exit_code == 0
    assert result.stdout.endswith("one-arm on eth1, 1 warning\n")
    assert result.stderr.startswith('warning L4R-141: service "web": nat with one interface')
    assert "(warns.toml:6:8)" in result.stderr
    assert run("check", "-q", "warns.toml").stderr == ""


def test_five_errors_are_reported_together(run: Run) -> None:
    result = run("check", "five.toml")
    assert result.exit_code == 3
    assert result.stdout == ""
    assert re.findall(r"^error (L4R-\d+): .*\((five\.toml:\d+:\d+)\)$", result.stderr, re.MULTILINE) == [
        ("L4R-108", "five.toml:2:1"),
        ("L4R-111", "five.toml:6:7"),
        ("L4R-112", "five.toml:7:8"),
        ("L4R-109", "five.toml:8:38"),
        ("L4R-134", "five.toml:13:12"),
    ]
    assert result.stderr.startswith(
        'error L4R-108: [lb]: unknown key "interface"; did you mean "interfaces"?'
    )
    assert result.stderr.endswith("\n5 problems. Nothing was changed.\n")


@pytest.mark.parametrize("args", [("--json", "check", "five.toml"), ("check", "five.toml", "--json")])
def test_errors_as_json_with_the_flag_before_or_after(run: Run, args: tuple[str, ...]) -> None:
    result = run(*args)
    assert result.exit_code == 3
    assert result.stdout == ""
    record = json.loads(result.stderr)
    assert (record["schema"], record["exit_code"], len(record["errors"])) == ("l4raw.error/1", 3, 5)
    assert record["errors"][2]["where"] == "five.toml:7:8"
    assert set(record["errors"][2]) == {"code", "severity", "what", "where", "excerpt", "why", "fix"}


def test_a_good_file_as_json(run: Run) -> None:
    result = run("check", "--json", "warns.toml")
    assert result.stderr == ""
    record = json.loads(result.stdout)
    assert set(record) == {"schema", "generated", "data", "warnings"}
    assert record["schema"] == "l4raw.check/1"
    assert record["warnings"][0]["code"] == "L4R-141"
    assert record["data"]["services"] == [
        {
            "name": "web",
            "vip": "10.77.0.100:80/tcp",
            "mode": "nat",
            "scheduler": "maglev",
            "check": "TCP handshake with each backend, every 2s, timeout 1s;"
            " down after 3 failures, up after 2",
            "backends": [
                {"name": "b1", "address": "10.77.0.11", "weight": 1},
                {"name": "b2", "address": "10.77.0.12", "weight": 1},
            ],
        }
    ]


def test_plain(run: Run) -> None:
    assert run("check", "good.toml", "--plain").stdout == "ok\tgood.toml\t1\t2\n"


@pytest.mark.parametrize("args", [("-c", "good.toml", "check"), ("check", "-c", "good.toml")])
def test_the_config_option_before_or_after(run: Run, args: tuple[str, ...]) -> None:
    assert run(*args).stdout.startswith("good.toml is right")


def test_the_variable_and_the_default_place(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("l4raw.toml").write_text(GOOD)
    assert run("check").stdout.startswith("l4raw.toml is right")
    monkeypatch.setenv("L4RAW_CONFIG", "good.toml")
    assert json.loads(run("check", "--json").stdout)["data"]["found_by"] == "$L4RAW_CONFIG"


@pytest.mark.parametrize(
    ("args", "found_by"), [(("good.toml",), "argument"), (("-c", "good.toml"), "-c")], ids=["argument", "-c"]
)
def test_how_the_file_was_found(run: Run, args: tuple[str, ...], found_by: str) -> None:
    assert json.loads(run("check", "--json", *args).stdout)["data"]["found_by"] == found_by


def test_a_flag_from_the_environment(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("L4RAW_JSON", "1")
    assert json.loads(run("check", "good.toml").stdout)["schema"] == "l4raw.check/1"


def test_no_configuration_offers_the_demo_and_the_template(run: Run) -> None:
    result = run("check")
    assert result.exit_code == 3
    assert result.stderr.startswith("error L4R-101: no configuration: no -c, $L4RAW_CONFIG is not set")
    assert "l4raw up --demo dsr" in result.stderr
    assert "l4raw config template" in result.stderr


def test_a_missing_file(run: Run) -> None:
    result = run("check", "gone.toml")
    assert result.exit_code == 3
    assert result.stderr.startswith(
        "error L4R-102: cannot read the file: no such file or directory (gone.toml)\n"
    )


def test_color_only_where_it_is_wanted(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert "\x1b[" in run("check", "gone.toml", color=True).stderr
    assert "\x1b[" not in run("check", "gone.toml").stderr
    assert "\x1b[" not in run("check", "gone.toml", "--no-color", color=True).stderr
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[" not in run("check", "gone.toml", color=True).stderr


def test_config_template(run: Run) -> None:
    result = run("config", "template")
    assert result.exit_code == 0
    assert tomllib.loads(result.stdout)["lb"]["interfaces"] == ["eth1"]
    Path("new.toml").write_text(result.stdout)
    assert run("check", "new.toml").exit_code == 0


def test_version(run: Run) -> None:
    result = run("version")
    assert re.match(
        rf"l4raw +{re.escape(__version__)}\npython +3\..*\nkernel +Linux .*\nabi +\d+\nnative +",
        result.stdout,
    )
    data = json.loads(run("version", "--json").stdout)["data"]
    assert set(data) == {"l4raw", "python", "kernel", "abi", "native", "xdp", "bpf", "af_xdp"}
    assert f"native\t{data['native']}\n" in run("version", "--plain").stdout


@pytest.mark.parametrize("text", ["L4R-203", "l4r-203", "L4R203"])
def test_explain_a_code(run: Run, text: str) -> None:
    result = run("explain", text)
    assert result.exit_code == 0
    code = REGISTRY["L4R-203"]
    assert result.stdout == f"L4R-203: {code.title} (error, exit code 4)\nwhy: {code.why}\nfix: {code.fix}\n"


@pytest.mark.parametrize(("name", "severity"), [("L4R-201", "error"), ("L4R-141", "warning")])
def test_a_code_in_plain_has_its_labels(run: Run, name: str, severity: str) -> None:
    code = REGISTRY[name]
    assert run("--plain", "explain", name).stdout.splitlines() == [
        f"code\t{name}",
        f"title\t{code.title}",
        f"why\t{code.why}",
        f"fix\t{code.fix}",
        f"severity\t{severity}",
        f"exit_code\t{code.exit_code}",
    ]


@pytest.mark.parametrize("name", REGISTRY)
def test_every_code_can_be_explained(run: Run, name: str) -> None:
    data = json.loads(run("explain", name, "--json").stdout)["data"]
    assert (data["kind"], data["code"], data["title"]) == ("code", name, REGISTRY[name].title)


def test_explain_lists_codes_and_refuses_what_it_does_not_know(run: Run) -> None:
    assert len(run("explain").stdout.splitlines()) == len(REGISTRY)
    for text in ("L4R-999", "something"):
        result = run("explain", text)
        assert result.exit_code == 2
        assert "`l4raw explain` lists them" in result.stderr
