"""How the tests are laid out: which module may import which."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
MODULES = sorted(TESTS.rglob("*.py"))


def imported_modules(source: str) -> Iterator[str]:
    """Return the names that a module imports, `a.b` for `from a import b`."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{'.' * node.level}{node.module or ''}.{name.name}" for name in node.names)


def forbidden_imports(source: str) -> list[str]:
    """Return the imports of what is in `tests` and is not a helper."""
    return [
        name
        for name in imported_modules(source)
        if name.startswith((".", "tests.")) and not name.startswith("tests.helpers.")
    ]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(TESTS)))
def test_a_module_of_tests_imports_no_other(path: Path) -> None:
    """What two of them need is a helper, so that each can be moved, renamed and run alone."""
    assert forbidden_imports(path.read_text(encoding="utf-8")) == []


def test_an_import_of_a_test_module_is_found() -> None:
    assert forbidden_imports("def f():\n    from tests.storage.test_queries import QUERIES\n") == [
        "tests.storage.test_queries.QUERIES"
    ]
    assert forbidden_imports("from tests import conftest") == ["tests.conftest"]
    assert forbidden_imports("from . import test_queries") == ["..test_queries"]
    assert forbidden_imports("import tests.helpers.cli\nfrom tests.helpers import snapshots") == []
