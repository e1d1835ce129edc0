"""A copy of the checkout, in which tests may make databases and files."""

import os
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

# What is made here and belongs to no checkout; see .gitignore.
_MADE = shutil.ignore_patterns(
    ".git",
    ".venv",
    "*.pyc.*",  # being written
    "*.egg-info",
    ".*_cache",
    ".hypothesis",
    "build",
    "dist",
    "*.db",
    "*.db-*",
    "*.db.*",
)


def copy_checkout(target: Path) -> Path:
    """Copy the checkout to `target` and give it the environment that the tests run in.

    What Python has compiled comes along: it counts as long as its source stays as it is.
    """
    shutil.copytree(ROOT, target, ignore=_MADE)
    (target / ".venv").symlink_to(sys.prefix)
    return target


def environment(checkout: Path) -> dict[str, str]:
    """Return environment variables under which commands import the package of that copy."""
    # A test may change the copy: its lines are not ours, so their coverage is not measured.
    # What a `make` that runs the tests was told is not for those that the tests run.
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("COVERAGE", "MAKE", "MFLAGS"))
    }
    return {
        **kept,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(checkout),
    }
