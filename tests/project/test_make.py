"""The Makefile makes an environment of the Python that it is given, and of none that is too old."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.checkout import ROOT


def _python(file: Path, version: str) -> Path:
    """Write a Python that says it has that version and can do nothing but run a line of code."""
    parts = tuple(map(int, version.split(".")))
    pretend = f"import sys; sys.version_info = {parts}; sys.version = '{version}'; exec(sys.argv[1])"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(
        f"#!/bin/sh\ncase $1 in\n--version) echo Python {version} ;;\n"
        f'-c) exec {sys.executable} -c "{pretend}" "$2" ;;\n*) exit 99 ;;\nesac\n',
        encoding="utf-8",
    )
    file.chmod(0o755)
    return file


def _make(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    # `make test PYTHON=...` hands its variables to every make below it.
    given = {name: value for name, value in os.environ.items() if name not in {"MAKEFLAGS", "PYTHON"}}
    return subprocess.run(
        ["make", *arguments], cwd=folder, env=given, capture_output=True, text=True, check=False
    )


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout in which nothing has been made."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


@pytest.mark.parametrize("word", ["demo", "test", "check"])
@pytest.mark.parametrize("version", ["3.10.13", "3.8.0", "2.7.18"])
def test_an_old_python_is_refused_at_once(word: str, version: str, checkout: Path) -> None:
    """Before anything is made or fetched, one line says which Python is needed, and how to name it."""
    python = _python(checkout / "old", version)
    done = _make(checkout, word, f"PYTHON={python}")

    assert done.returncode != 0
    assert f"needs Python 3.11 or newer, and {python} is {version}" in done.stderr
    assert f"`make {word} PYTHON=python3." in done.stderr
    assert not (checkout / ".venv").exists()


def test_an_old_python_is_refused_though_there_is_an_environment(checkout: Path) -> None:
    """Who names a Python means it; the environment that is there stays as it is."""
    _python(checkout / ".venv/bin/python", "3.12.1")
    (checkout / ".venv/installed").touch()
    done = _make(checkout, "test", f"PYTHON={_python(checkout / 'old', '3.10.13')}")

    assert done.returncode != 0
    assert "needs Python 3.11 or newer" in done.stderr
    assert (checkout / ".venv/installed").exists()


@pytest.mark.parametrize(("version", "made"), [("3.11.0", True), ("3.12.1", False), ("3.13.0", True)])
def test_the_environment_has_the_version_that_is_named(version: str, made: bool, checkout: Path) -> None:
    """An environment of another version is made anew; one of the same version is used."""
    _python(checkout / ".venv/bin/python", "3.12.1")
    (checkout / ".venv/installed").touch()
    python = _python(checkout / "other", version)
    done = _make(checkout, "--dry-run", "test", f"PYTHON={python}")

    assert done.returncode == 0, done.stderr
    assert (f"{python} -m venv --clear .venv" in done.stdout) == made
    assert "-m pytest" in done.stdout


def test_without_a_named_python_the_environment_stays(checkout: Path) -> None:
    """Whichever version `python3` is: it was right once."""
    _python(checkout / ".venv/bin/python", "3.99.0")
    (checkout / ".venv/installed").touch()

    printed = _make(checkout, "--dry-run", "test").stdout

    assert "-m pytest" in printed
    assert "venv --clear" not in printed
