"""Configuration as a file: which one is read, what cannot be read or is not TOML, noise, the template."""

from __future__ import annotations

import tomllib
from importlib.resources import files
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from l4raw.control import config, shape
from l4raw.control.config import find, load, parse
from l4raw.control.errors import ConfigErrors, L4Error

GOOD = """\
[lb]
interfaces = ["eth1"]
[[service]]
name = "web"
vip = "10.77.0.100:80/tcp"
mode = "dsr-l2"
backends = [{ name = "b1", address = "10.77.0.11" }]
"""


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder, and an /etc of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(config, "SYSTEM", tmp_path / "etc.toml")
    return tmp_path


def test_the_order_of_places(places: Path) -> None:
    system, local, named, given = (places / name for name in ("etc.toml", "l4raw.toml", "env.toml", "c.toml"))
    environ: dict[str, str] = {}
    system.write_text(GOOD)
    assert load(None, environ).path == system
    local.write_text(GOOD)
    assert load(None, environ).path == Path("l4raw.toml")
    named.write_text(GOOD)
    environ["L4RAW_CONFIG"] = str(named)
    loaded = load(None, environ)
    assert (loaded.path, loaded.found_by) == (named, "$L4RAW_CONFIG")
    given.write_text(GOOD)
    assert find(given, environ) == (given, "-c")


def test_an_empty_variable_is_no_variable(places: Path) -> None:
    with pytest.raises(L4Error, match="L4R-101"):
        find(None, {"L4RAW_CONFIG": ""})


def test_nothing_found_says_where_it_looked_and_what_to_do(places: Path) -> None:
    with pytest.raises(L4Error) as caught:
        load(None, {})
    error = caught.value
    assert error.exit_code == 3
    for words in ("-c", "$L4RAW_CONFIG", "./l4raw.toml", str(config.SYSTEM)):
        assert words in error.what
    assert "l4raw up --demo dsr" in error.fix
    assert "l4raw config template" in error.fix


def test_a_named_file_is_not_replaced_by_another(places: Path) -> None:
    (places / "l4raw.toml").write_text(GOOD)
    with pytest.raises(L4Error) as caught:
        load(None, {"L4RAW_CONFIG": "gone.toml"})
    assert (caught.value.code, caught.value.where) == ("L4R-102", "gone.toml")
    assert "named by $L4RAW_CONFIG" in caught.value.what


@pytest.mark.parametrize("kind", ["missing", "folder", "binary", "endless", "nul"])
def test_a_file_that_cannot_be_read(kind: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    path = {"endless": Path("/dev/zero"), "nul": Path("a\0b")}.get(kind, tmp_path / kind)
    with pytest.raises(L4Error) as caught:
        load(path, {})
    assert (caught.value.code, caught.value.exit_code) == ("L4R-102", 3)


def test_the_template_is_a_good_file() -> None:
    text = files("l4raw.control").joinpath("template.toml").read_text("utf-8")
    assert parse(text, Path("l4raw.toml")).config.services[0].name == "web"


def test_the_template_shows_every_key_and_true_defaults() -> None:
    text = files("l4raw.control").joinpath("template.toml").read_text("utf-8")
    lines = [line.removeprefix("# ") if " = " in line or "[[" in line else line for line in text.split("\n")]
    document = tomllib.loads("\n".join(lines))
    assert document["lb"].keys() == shape.Lb.model_fields.keys()
    assert document["service"][0].keys() == shape.Service.model_fields.keys()
    assert document["lb"].pop("ring_seed")
    full = shape.Root.model_validate(document)
    assert full.lb == shape.Lb.model_validate({"interfaces": ["eth1"]})
    assert full.service[0].timeouts == shape.Timeouts()


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("[lb\n", "x.toml:1:4"),
        ('[lb]\na = "', "x.toml:2:6"),
        ("a = 1\na = 2", "x.toml:2:1"),
        ("a = " + "[" * 9999, None),
    ],
)
def test_what_is_not_toml(text: str, where: str | None) -> None:
    with pytest.raises(ConfigErrors) as caught:
        parse(text, Path("x.toml"))
    assert caught.value.code == "L4R-103"
    assert where is None or caught.value.where == where


@pytest.mark.parametrize(
    ("text", "where", "what"),
    [
        (
            '[lb]\nring_seed = "a"\n  ring_seed = "b" # again\n', "3:3",
            'the key "ring_seed" is there twice; see line 2'),
        ("[lb]\nx = 1\n[lb]\n", "3:1", "the table [lb] is there twice; see line 1"),
        ("[a.b]\n[a]\n[c]\n[a.b]\n", "4:1", "the table [a.b] is there twice; see line 1"),
        ("x = { a = 1, b = 2, a = 3 }", "1:21", 'the key "a" is there twice; see line 1'),
        ("a = 1\n[a]\n", "2:1", 'the table [a] is there twice; see line 1'),
        ("[a]\nb.c = 1\nb = 2", "3:1", 'the key "b" is there twice; see line 2'),
        (
            '[[service]]\nname = "a"\n[[service]]\nname = "b"\n"name" = "c"', "5:1",
            'the key "name" is there twice; see line 4'),
        ('a = """\nb = 1\nb = 1"""\nb = 1\nb = 2\na = 3', "5:1", 'the key "b" is there twice; see line 4'),
    ],
)  # fmt: skip
def test_what_is_there_twice_is_named_and_pointed_at(text: str, where: str, what: str) -> None:
    with pytest.raises(ConfigErrors) as caught:
        parse(text, Path("x.toml"))
    assert (caught.value.code, caught.value.where) == ("L4R-103", f"x.toml:{where}")
    assert caught.value.what == f"not TOML: {what}"


def test_what_is_no_repetition_is_told_as_before() -> None:
    """An error of another kind, after something that looks like a repetition to us, or before one."""
    for text in ("[a]\nb = 1\n[a.c]\n[lb\n", "[lb\na = 1\na = 2\n", "x = {a = 1}\nx.b = 2\ny.z = 1\n[y]\n"):
        with pytest.raises(ConfigErrors) as caught:
            parse(text, Path("x.toml"))
        assert "twice" not in caught.value.what


PIECES = ["[lb]\n", "[[service]]\n", "[service]\n", "lb = 3\n", "service = [1, {}]\n"]
KEYS = [
    "interfaces",
    "name",
    "vip",
    "mode",
    "scheduler",
    "backends",
    "timeouts",
    "weight",
    "flow_memory",
    "x",
]
VALUES = [
    *(
        '"nat"',
        '"rr"',
        '"10.0.0.1"',
        '"10.0.0.1:80/tcp"',
        "[]",
        "{}",
        "-1",
        "1.5",
        "true",
        "1979-05-27",
        '"64MiB"',
    ),
    *(
        '["a"]',
        "[[]]",
        '[{name="a",address="10.0.0.2"},{name="a",port=[1]},3]',
        '{syn="1s",udp={}}',
        "0x" + "f" * 5000,
    ),
]


@settings(deadline=None)
@given(
    st.lists(
        st.one_of(
            st.sampled_from(PIECES),
            st.builds("{} = {}\n".format, st.sampled_from(KEYS), st.sampled_from(VALUES)),
            st.text(max_size=5),
        ),
        max_size=12,
    ).map("".join)
)
def test_any_text_is_accepted_or_refused_and_never_anything_else(text: str) -> None:
    try:
        parse(text, Path("l4raw.toml"))
    except ConfigErrors as errors:
        for problem in errors.problems:
            assert (problem.where or "").startswith("l4raw.toml:")
