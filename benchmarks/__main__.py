"""Measure and report: `python -m benchmarks`, or only some of it, `python -m benchmarks growth --quick`."""

import argparse
import shutil
import sys
import tempfile
import time
import traceback
from importlib import import_module
from pathlib import Path

from benchmarks import results
from benchmarks.measure import Plan

ROOM = 8 << 30  # bytes, for ten million rows
MODULES = ("against_rivals", "opening", "growth", "upgrade", "concurrency", "many_tasks")


def main() -> int:
    """Measure what is named, part by part; what has failed is told at the end."""
    asked = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    asked.add_argument(
        "names", nargs="*", help=f"of {', '.join(MODULES)}, or of their parts; all unless given"
    )
    asked.add_argument(
        "--quick", action="store_true", help="do little, only to see that it works; keeps nothing"
    )
    asked.add_argument("--missing", action="store_true", help="only what results.json does not have yet")
    asked.add_argument("--report", action="store_true", help="measure nothing, write the page again")
    given = asked.parse_args()
    with tempfile.TemporaryDirectory(prefix="poker-therapist-bench-") as name:
        folder = Path(name)
        if not (given.quick or given.report) and shutil.disk_usage(folder).free < ROOM:
            sys.exit(f"there is not enough room in {folder.parent}: name another folder in TMPDIR")
        path = folder / "quick.json" if given.quick else results.RESULTS
        failed = [] if given.report else _measure(given, path, folder)
        _report(given.quick, path, folder)
    if failed:
        print(f"failed: {', '.join(failed)}; run `python -m benchmarks --missing` for these alone")
    return bool(failed)


def _measure(given: argparse.Namespace, path: Path, folder: Path) -> list[str]:
    """Measure part by part, and return those that failed."""
    parts = {
        part: (module, run)
        for module in MODULES
        for part, run in import_module(f"benchmarks.{module}").PARTS.items()
    }
    names = {*MODULES, *parts}
    if unknown := sorted(set(given.names) - names):
        sys.exit(f"there is no {', '.join(unknown)}; there are {', '.join(sorted(names))}")
    failed = []
    known = results.read(path)
    for part, (module, run) in parts.items():
        if (given.names and not {part, module} & set(given.names)) or (given.missing and part in known):
            continue
        start = time.monotonic()
        print(f"{part} ...", end=" ", flush=True)
        try:
            results.write(path, part, run(Plan(folder, given.quick)))
        except Exception:  # the other parts can still be measured
            traceback.print_exc()
            failed.append(part)
        print(f"{time.monotonic() - start:.0f} s", flush=True)
    return failed


def _report(quick: bool, path: Path, folder: Path) -> None:
    """Write the page and its pictures; after a quick run, only print the page."""
    from benchmarks import pictures, report

    found = results.read(path)
    if quick:
        pictures.draw(found, folder)
        print(report.text(found))
        return
    report.PAGE.write_text(report.text(found), encoding="utf-8")
    pictures.draw(found, report.PAGE.parent)


if __name__ == "__main__":
    sys.exit(main())
