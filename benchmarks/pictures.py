"""The pictures of docs/benchmarks.md, drawn from results.json."""

from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from benchmarks.report import OURS, SHORT, WORK_NAMES
from benchmarks.results import Results

# The same picture from the same numbers, to the letter.
mpl.rcParams["svg.hashsalt"] = "poker-therapist"
mpl.rcParams["svg.fonttype"] = "none"
mpl.rcParams["font.size"] = 9
_COLOURS = ("#1b6ca8", "#e07a1f", "#3c9a5f", "#8457a8")


def draw(results: Results, folder: Path) -> None:
    """Draw the pictures of those parts that were measured."""
    if {"rivals_sqlite", "rivals_postgresql"} <= results.keys():
        _save(_shares(results), folder / "benchmarks-shares.svg")
    if {"growth_sqlite", "growth_postgresql"} <= results.keys():
        _save(_growth(results), folder / "benchmarks-growth.svg")
    if {"concurrency_sqlite", "concurrency_postgresql"} <= results.keys():
        _save(_concurrency(results), folder / "benchmarks-concurrency.svg")


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, format="svg", bbox_inches="tight", metadata={"Date": None})
    # matplotlib ends some lines with a blank.
    lines = path.read_text(encoding="utf-8").splitlines()
    path.write_text("".join(f"{line.rstrip()}\n" for line in lines), encoding="utf-8")


def _shares(results: Results) -> Figure:
    """Draw a bar for each arm and work, with its spread; the limit is the line at 1."""
    figure = Figure(figsize=(8, 7), layout="constrained")
    parts = [("SQLite", results["rivals_sqlite"]), ("PostgreSQL", results["rivals_postgresql"])]
    arms = [[arm for arm in next(iter(part["shares"].values())) if arm != part["limit"]] for _, part in parts]
    axes = figure.subplots(2, 1, height_ratios=[len(names) for names in arms])
    for axis, (engine, part), names in zip(axes, parts, arms, strict=True):
        for place, (work, by_arm) in enumerate(part["shares"].items()):
            found = [by_arm[name] for name in names]
            axis.barh(
                [number + (place - 1.5) * 0.2 for number in range(len(names))],
                [one["median"] for one in found],
                0.2,
                xerr=_spread(found),
                error_kw={"elinewidth": 0.7},
                label=WORK_NAMES[work],
                color=_COLOURS[place],
            )
        axis.axvline(1, color="black", linewidth=0.8)
        axis.set_yticks(range(len(names)), names)
        axis.invert_yaxis()
        axis.set_title(f"{engine}: speed as a share of {part['limit']}")
    axes[0].legend(loc="lower right")
    return figure


def _growth(results: Results) -> Figure:
    """Draw a line for each work, and a dotted one for raw; the limit of the aim is dashed."""
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    for axis, engine in zip(axes, ("SQLite", "PostgreSQL"), strict=True):
        latencies = results[f"growth_{engine.lower()}"]["latency_by_rows"]
        for place, (work, by_rows) in enumerate(latencies["ours"].items()):
            found, raw = list(by_rows.values()), latencies["raw"][work].values()
            axis.errorbar(
                [int(rows) for rows in by_rows],
                [one["median"] for one in found],
                yerr=_spread(found),
                capsize=2,
                marker="o",
                markersize=3,
                label=WORK_NAMES[work],
                color=_COLOURS[place],
            )
            axis.plot(
                [int(rows) for rows in by_rows], [one["median"] for one in raw], ":", color=_COLOURS[place]
            )
        axis.axhline(1.5, color="black", linewidth=0.8, linestyle="--")
        axis.set_xscale("log")
        axis.set_ylim(bottom=0)
        axis.set_xlabel("rows in each table")
        axis.set_title(engine)
    axes[0].set_ylabel("latency, as a multiple of\nthat at the fewest rows")
    axes[0].legend(loc="upper left")
    return figure


def _concurrency(results: Results) -> Figure:
    """Draw ours and raw, with processes and with threads."""
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    axes = figure.subplots(1, 2)
    for axis, engine in zip(axes, ("SQLite", "PostgreSQL"), strict=True):
        part = results[f"concurrency_{engine.lower()}"]
        for place, kind in enumerate(("processes", "threads")):
            by_workers = part[kind]["workers"]
            for arm, style in ((OURS, "-"), ("raw", ":")):
                axis.plot(
                    range(len(by_workers)),
                    [found[f"throughput_by_one_raw_{arm}"] for found in by_workers.values()],
                    style,
                    marker="o",
                    markersize=3,
                    label=f"{SHORT.get(arm, arm)}, {kind}",
                    color=_COLOURS[place],
                )
            axis.set_xticks(range(len(by_workers)), list(by_workers))
        axis.set_ylim(bottom=0)
        axis.yaxis.set_major_formatter(PercentFormatter(1))
        axis.set_xlabel("at once")
        axis.set_title(engine)
    axes[0].set_ylabel("throughput, as a share of\none raw connection's")
    axes[1].legend(loc="best")
    return figure


def _spread(found: list[dict[str, Any]]) -> list[list[float]]:
    """Return how far the spread reaches below and above the medians."""
    return [
        [one["median"] - one["min"] for one in found],
        [one["max"] - one["median"] for one in found],
    ]
