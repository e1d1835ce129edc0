"""The package's front door says all that is behind it."""

import inspect
import re
import subprocess
import sys
import tomllib
from collections import deque
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import poker_therapist
from poker_therapist import InvalidInput, errors, records, values
from tests.helpers.checkout import ROOT


def _classes_of(module: ModuleType) -> set[str]:
    return {
        name
        for name, kind in vars(module).items()
        if inspect.isclass(kind) and kind.__module__ == module.__name__
    }


ERRORS, RECORDS = _classes_of(errors), _classes_of(records)


def test_what_a_program_needs_can_be_imported_from_the_package() -> None:
    """Every error, what the methods take and return, and nothing that does not exist."""
    names = {"JSON", "PatternStorage", "__version__", "as_datetime", "get_pattern_storage"}
    expected = ERRORS | RECORDS | names

    assert set(poker_therapist.__all__) == expected
    assert {"Pattern", "Context", "Insight", "Recollection", "Export", "Forgotten"} <= RECORDS
    assert all(hasattr(poker_therapist, name) for name in expected)


def test_the_version_is_the_one_that_is_installed() -> None:
    """Installed from here, the metadata and the package say the same."""
    assert poker_therapist.__version__ == version("poker-therapist")


def test_importing_the_package_imports_nothing_slow() -> None:
    """No yoyo, no driver of PostgreSQL, no parser, and no metadata to learn the version."""
    script = "import sys, poker_therapist; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    loaded = set(done.stdout.split())
    assert "poker_therapist.storage" in loaded
    assert not loaded & {"yoyo", "psycopg", "sqlparse", "click", "rich", "importlib.metadata"}


# As an app writes them: literals, and variables of a narrower type. What JSON cannot represent is refused by
# the type checker where the type of the whole value says so, and when it is saved in any case.
STORED = {
    "None": None,
    "True": True,
    "1.8": 1.8,
    "'text'": "text",
    "{'bets_up': 1.8}": {"bets_up": 1.8},
    "[1, 'two', None, {'three': [4]}]": [1, "two", None, {"three": [4]}],
    "(1, 'two')": (1, "two"),
    "floats": {"x": 1.8},
    "texts": ["a"],
    "nested": {"a": [{"b": 1}]},
}
REFUSED: dict[str, Any] = {
    "b'text'": b"text",
    "bytearray(2)": bytearray(2),
    "range(3)": range(3),
    "deque([1])": deque([1]),
    "{1, 2}": {1, 2},
    "MappingProxyType({'a': 1})": MappingProxyType({"a": 1}),
    "datetime.now(UTC)": datetime.now(UTC),
    "1j": 1j,
    "{1: 'one'}": {1: "one"},
    "numbered": {1: "one"},
}
PRELUDE = """
from collections import deque
from datetime import UTC, datetime
from types import MappingProxyType
from poker_therapist.values import JSON

def save(value: JSON) -> None: ...

floats: dict[str, float] = {"x": 1.8}
texts: list[str] = ["a"]
nested: dict[str, list[dict[str, int]]] = {"a": [{"b": 1}]}
numbered: dict[int, str] = {1: "one"}
"""


def test_the_type_json_is_what_can_be_saved(tmp_path: Path) -> None:
    """What mypy passes as JSON is saved, and what is refused when it is saved does not pass."""
    written = [*STORED, *REFUSED]
    snippet = tmp_path / "snippet.py"
    snippet.write_text(PRELUDE + "".join(f"save({value})\n" for value in written), encoding="utf-8")
    first = PRELUDE.count("\n") + 1
    # Of the package only this module is read: the whole of it takes ten times as long.
    command = ["--strict", "--follow-imports=skip", f"--cache-dir={tmp_path / 'cache'}", "--config-file="]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *command, snippet, ROOT / "poker_therapist" / "values.py"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    errors_at = {int(line) for line in re.findall(r"snippet\.py:(\d+): error", done.stdout)}

    assert [value for line, value in enumerate(written, first) if line in errors_at] == [*REFUSED], (
        done.stdout
    )
    assert [values.encode(value) for value in STORED.values()]  # none is refused
    for value in REFUSED.values():
        with pytest.raises(InvalidInput):
            values.encode(value)


def test_the_tree_of_errors_shows_each_under_its_parent() -> None:
    """As the classes are, so is the drawing at the top of the module."""
    parents: dict[str, str] = {}
    above: list[str] = []
    for bars, name in re.findall(r"^([│├└─ ]*)([A-Z]\w+)", errors.__doc__ or "", re.MULTILINE):
        depth = len(bars) // 4
        above[depth:] = [name]
        if depth:
            parents[name] = above[depth - 1]

    assert parents.keys() | {"PokerTherapistError"} == ERRORS
    assert all(getattr(errors, name).__bases__[0].__name__ == parent for name, parent in parents.items())


def test_every_error_says_what_it_is_and_is_ours() -> None:
    """One sentence first, and one class to catch them all."""
    for name in ERRORS:
        kind = getattr(errors, name)

        assert issubclass(kind, errors.PokerTherapistError)
        assert (kind.__doc__ or "").partition("\n\n")[0].endswith(".")


def _requirements() -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    return [Requirement(line) for group in groups for line in group]


LOCKED = dict(
    line.split("==") for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
)


@pytest.mark.parametrize("required", _requirements(), ids=str)
def test_every_requirement_is_locked_to_a_version_that_it_allows(required: Requirement) -> None:
    """The environment of development and of CI is the same tomorrow; `make lock` renews it."""
    locked = {canonicalize_name(name): number for name, number in LOCKED.items()}

    assert required.specifier.contains(locked[canonicalize_name(required.name)])


@pytest.mark.parametrize("name", ["click", "psycopg", "yoyo-migrations", "sqlparse", "rich"])
def test_a_library_that_changes_with_its_major_version_has_an_upper_bound(name: str) -> None:
    """A new major version is another interface, and is tried before it is allowed."""
    bounds = [required.specifier for required in _requirements() if required.name == name]

    assert bounds
    assert all(any(one.operator == "<" for one in bound) for bound in bounds)
