"""What pydantic says, in the words of l4raw.

Lives here: from a pydantic error (a type, a way, a context) to a `Finding` with
a code, the name of the service it is about, and a suggestion.
"""

from __future__ import annotations

from typing import Any

from l4raw.control import shape, values
from l4raw.control.shape_table import toml_type
from l4raw.control.source import Finding
from l4raw.control.toml_lines import Loc


def from_pydantic(error: Any, raw: dict[str, Any]) -> Finding:
    """`error` is one of `ValidationError.errors()`, `raw` the document that was validated."""
    loc: Loc = tuple(error["loc"])
    kind = error["type"]
    if kind == "missing":
        return _missing(loc, raw)
    if kind == "extra_forbidden":
        return _unknown_key(loc, raw)
    head = label(loc, raw)
    cause = error.get("ctx", {}).get("error")
    if isinstance(cause, values.Refused):
        return Finding(cause.code, loc, f"{head}{_last_word(loc)} {cause.what}", cause.fix)
    expected = {"model_type": "a table", "dict_type": "a table", "list_type": "a list"}.get(kind)
    if expected:
        found = toml_type(error["input"])
        return Finding("L4R-105", loc, f"{head}{_last_word(loc)} is {found}; {expected} is expected")
    return Finding("L4R-105", loc, f"{head}{_last_word(loc)} is not accepted: {error['msg']}")


def label(loc: Loc, raw: dict[str, Any]) -> str:
    """What a place belongs to, with a colon: `service "web": backend "b1": `, `[lb]: `, or nothing."""
    if len(loc) > 1 and loc[0] == "lb":
        return "[lb]: "
    text = ""
    if len(loc) > 2 and loc[0] == "service":
        text = _named("service", raw, loc[:2])
        if len(loc) > 4 and loc[2] == "backends":
            text += _named("backend", raw, loc[:4])
    return text


def _named(noun: str, raw: Any, loc: Loc) -> str:
    """`service "web": `, or `service #2: ` when it has no name that could be quoted."""
    for part in loc:
        raw = raw[part]
    name = raw.get("name") if isinstance(raw, dict) else None
    if isinstance(name, str) and name:
        return f'{noun} "{name}": '
    index = loc[-1]
    assert isinstance(index, int)
    return f"{noun} #{index + 1}: "


def _last_word(loc: Loc) -> str:
    """The key that a place is about; an item of a list has the name of the list."""
    words = [str(part) for part in loc if isinstance(part, str)]
    if isinstance(loc[-1], int) and words[-1] in ("service", "backends", "snat"):
        return f"{words[-1]} #{loc[-1] + 1}"
    return words[-1]


def _missing(loc: Loc, raw: dict[str, Any]) -> Finding:
    key = _last_word(loc)
    if loc == ("lb",):
        return Finding("L4R-104", loc, "there is no table [lb]", 'add [lb] with interfaces = ["eth1"]')
    if loc == ("service",):
        return Finding("L4R-104", loc, "there is no [[service]]", "`l4raw config template` shows one")
    return Finding("L4R-104", loc, f"{label(loc, raw)}{key} is missing", f"add {key} = ...")


def _unknown_key(loc: Loc, raw: dict[str, Any]) -> Finding:
    table = shape.table_at(loc[:-1])
    key = str(loc[-1])
    head = label(loc, raw)
    if key in table.later:
        return Finding("L4R-113", loc, f'{head}key "{key}" is not in this version', key=True)
    hint = values.suggestion(key, table.model_fields)
    if not hint and (later := values.suggestion(key, table.later)):
        hint = f"{later.rstrip('?')}, which is not in this version?"
    fix = ""
    if not hint:
        fix = f"remove it; known here: {', '.join(table.model_fields)}"
    return Finding("L4R-108", loc, f'{head}unknown key "{key}"{hint}', fix, key=True)
