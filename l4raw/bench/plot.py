"""A result as a picture, by matplotlib, which is an extra."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class NoMatplotlib(Exception):
    """It is not installed. The text says how to get it."""


def require(path: Path) -> None:
    """Raises NoMatplotlib, or ValueError for a kind of file that it does not write."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
    except ImportError as error:
        raise NoMatplotlib(
            f"--plot needs matplotlib, where l4raw is: {sys.executable} -m pip install matplotlib"
        ) from error
    kinds = sorted(FigureCanvasAgg.get_supported_filetypes())
    if path.suffix.removeprefix(".") not in kinds:
        raise ValueError(f"no such kind of picture; there are: {', '.join(kinds)}")


def plot(result: Mapping[str, Any], path: Path) -> None:
    """Rates with quartiles, and latency at both loads. Raises NoMatplotlib, OSError, ValueError."""
    require(path)
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (rates, latency) = pyplot.subplots(1, 2, figsize=(10, 4))
    saturated, setting = result["saturated"], result["setting"]
    names = ["bare program", "l4raw, saturated"]
    spreads = [saturated["bare"], saturated["rate"]]
    middles = [each["median"] / 1e6 for each in spreads]
    low = [(each["median"] - each["low"]) / 1e6 for each in spreads]
    high = [(each["high"] - each["median"]) / 1e6 for each in spreads]
    rates.bar([*names, "l4raw, without loss"], [*middles, (result["no_loss"] or 0) / 1e6])
    rates.errorbar(names, middles, yerr=[low, high], fmt="none", ecolor="black", capsize=4)
    rates.set_ylabel("million frames/s; whiskers: quartiles")
    for each in result["latency"]:
        label = f"{each['load']:.0%} load"
        latency.plot(list(each["us"]), list(each["us"].values()), marker="o", label=f"l4raw, {label}")
        bare = list(each["bare_us"].values())
        latency.plot(list(each["bare_us"]), bare, marker="x", linestyle=":", label=f"bare, {label}")
    latency.set_ylabel("us from generator to sink")
    if result["latency"]:
        latency.legend()
    figure.suptitle(
        f"{setting['mode']}, {setting['dataplane']}, {setting['protocol']}, {setting['flows']:,} flows"
    )
    figure.tight_layout()
    figure.savefig(path)
    pyplot.close(figure)
