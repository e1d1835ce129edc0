"""The house keeps its plan: sizes, the direction of imports, and the walks that CONTRIBUTING.md describes."""

import ast
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import grimp
import pytest

from tests.helpers import old_app
from tests.helpers.checkout import ROOT
from tests.helpers.engines import is_server
from tests.helpers.postgresql import atomic
from tests.helpers.scripts import run_script
from tests.helpers.walks import PACKAGE

PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")

MODULES = sorted(PACKAGE.rglob("*.py"))
LONGEST = 450
MOST_LINES = 24_000

# A reader opens these and a profiler sees no function of theirs: what is declared, or compiled beforehand.
NOT_CALLED = re.compile(r".*\.sql|database\.py|sqlfile\.py|\w+/yoyo\.py")


def _lines(file: Path) -> int:
    return len(file.read_text(encoding="utf-8").splitlines())


def test_no_module_is_long() -> None:
    """A module can be read at one sitting."""
    assert {file.name: _lines(file) for file in MODULES if _lines(file) > LONGEST} == {}


def test_the_package_and_its_sql_stay_small() -> None:
    """Size is a cost: a feature that needs more room says what it replaces."""
    files = [*MODULES, *(file for file in PACKAGE.rglob("*.sql") if "sql_migrations" not in file.parts)]

    assert 5_000 < sum(map(_lines, files)) < MOST_LINES


def test_no_modules_import_each_other_in_a_circle() -> None:
    """The package's `__init__` included, and imports for types alone."""
    graph = grimp.build_graph("poker_therapist", cache_dir=None)
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}

    assert sum(map(len, imports.values())) > 100
    TopologicalSorter(imports).prepare()  # raises CycleError, which names the circle


@pytest.mark.parametrize(
    ("module", "imported", "broken"),
    [
        ("values", "errors", None),
        ("location", "database", "Imports go one way"),
        ("storage", "cli", "Imports go one way"),
        ("testing", "cli", "Imports go one way"),
        ("new_module", "errors", "Imports go one way"),
        ("migrations/files", "migrations.status", "No circle, between modules or folders"),
        ("migrations/files", "sqlite.tokens", "The migrations know no engine"),
        ("migrations/files", "postgresql.split", "The migrations know no engine"),
        ("sqlite/tokens", "postgresql.split", "SQLite's room is its own"),
        ("sqlite/tokens", "schema", "SQLite's room is its own"),
        ("postgresql/split", "sqlite.tokens", "PostgreSQL's room is its own"),
        ("postgresql/split", "engines", "PostgreSQL's room is its own"),
    ],
)
@pytest.mark.slow
def test_an_import_against_the_plan_is_found(
    module: str, imported: str, broken: str | None, tmp_path: Path
) -> None:
    """`make check` names the contract that an import breaks, and keeps the house as it is."""
    shutil.copytree(PACKAGE, tmp_path / "poker_therapist")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    with (tmp_path / "poker_therapist" / f"{module}.py").open("a", encoding="utf-8") as file:
        file.write(f"\nimport poker_therapist.{imported}\n")

    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-logo", "--no-cache"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    found = re.findall(r"^(.+) BROKEN$", done.stdout, re.MULTILINE)
    assert done.returncode == bool(found), done.stdout + done.stderr
    assert (broken in found) if broken else (found == [])


# What makes code, or a command of a shell, of data.
_FORBIDDEN_NAMES = {"eval", "exec", "compile", "__import__"}
_FORBIDDEN_MODULES = re.compile(r"(.*pickle|dill|marshal|shelve|codeop?|runpy|yaml|pty|ctypes)(\..+)?")
_FORBIDDEN_CALLS = {
    "os": re.compile(r"system|popen|exec.+|spawn.+|posix_spawn.*|startfile"),
    "subprocess": re.compile(r"getoutput|getstatusoutput"),
    "asyncio": re.compile(r"create_subprocess_shell"),
    "builtins": re.compile(r".+"),
}


def _code_of_data(source: str) -> Iterator[str]:
    """Name what in a module can run data as code or as a command of a shell."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                found = {one.name for one in names if _FORBIDDEN_MODULES.fullmatch(one.name)}
                found |= {one.name for one in names if one.asname and one.name in _FORBIDDEN_CALLS}
            case ast.ImportFrom(module="marshal", names=[ast.alias(name="dumps", asname=None)]):
                found = set()  # which writes, and reads nothing
            case ast.ImportFrom(module=str(module), names=names):
                pattern = _FORBIDDEN_CALLS.get(module)
                found = {module} if _FORBIDDEN_MODULES.fullmatch(module) else set()
                found |= {one.name for one in names if pattern and pattern.fullmatch(one.name)}
            case ast.Name(id=name) | ast.Constant(value=str(name)) if name in _FORBIDDEN_NAMES:
                found = {name}
            case ast.Attribute(value=ast.Name(id=module), attr=name) if module in _FORBIDDEN_CALLS:
                found = {f"{module}.{name}"} if _FORBIDDEN_CALLS[module].fullmatch(name) else set()
            case ast.keyword(arg="shell", value=value):
                found = set() if isinstance(value, ast.Constant) and value.value is False else {"shell="}
            case ast.Call(func=ast.Attribute(attr="import_module"), args=[ast.Constant(), *_]):
                found = set()
            case ast.Call(func=ast.Attribute(attr="import_module") | ast.Name(id="import_module")):
                found = {"import_module"}
            case _:
                found = set()
        yield from (f"line {getattr(node, 'lineno', '?')}: {name}" for name in found)


def test_no_data_is_run_as_code() -> None:
    """Neither by Python nor by a shell: what comes from a database, a file or a user stays data."""
    found = {
        str(file.relative_to(PACKAGE)): list(_code_of_data(file.read_text(encoding="utf-8")))
        for file in MODULES
    }

    assert {file: what for file, what in found.items() if what} == {}


@pytest.mark.parametrize(
    "line",
    [
        "eval(text)",
        "run = exec",
        "compile(text, '', 'exec')",
        "__import__(name)",
        "getattr(builtins, 'eval')(text)",
        "builtins.exec(text)",
        "import pickle",
        "import marshal as m",
        "from pickle import loads",
        "from marshal import loads",
        "from marshal import dumps, loads",
        "import yaml",
        "os.system(text)",
        "os.popen(text)",
        "os.execvp(text, [])",
        "from os import system",
        "import os as o",
        "subprocess.run(text, shell=True)",
        "subprocess.run(text, shell=wanted)",
        "subprocess.getoutput(text)",
        "asyncio.create_subprocess_shell(text)",
        "importlib.import_module(name)",
    ],
)
def test_what_runs_data_as_code_is_found(line: str) -> None:
    assert len(list(_code_of_data(line))) >= 1
    assert list(_code_of_data("re.compile(text); subprocess.run(['x', text], shell=False); import os")) == []


def _walk(heading: str, engine: str) -> list[str]:
    """Return the files that the page names under a heading for an engine."""
    section = PAGE.partition(f"\n### {heading}\n")[2].partition("\n#")[0]
    rows = re.findall(r"^\| `([^`]+)` \| (.*) \|$", section, re.MULTILINE)
    folder, other = {"sqlite": ("postgresql/", "PostgreSQL"), "postgresql": ("sqlite/", "SQLite")}[engine]
    return [file for file, what in rows if not (file.startswith(folder) or what.endswith(f"(on {other})"))]


def _assert_described(walk: list[str], called: set[str], *, most: int) -> None:
    assert [file for file in walk if not (PACKAGE / file).is_file()] == []
    assert len(set(walk)) == len(walk) <= most
    assert called <= set(walk), "CONTRIBUTING.md does not name these"
    assert {file for file in walk if not NOT_CALLED.fullmatch(file)} <= called, "these are not called"


_SAVE = """
import sys
from poker_therapist import get_pattern_storage
from tests.helpers.walks import files_called

with get_pattern_storage(sys.argv[1]) as storage, files_called() as called:
    storage.save_pattern(7, "tilt", "after_bad_beat", {"bets_up": 1.8})
print(*sorted(called), sep="\\n")
"""


def test_the_walk_of_a_save_is_short_and_described(engine: str, migrated: str) -> None:
    """From `save_pattern` to SQL and back there are few files to read, and CONTRIBUTING.md names them."""
    # In a process of its own: a block that a test has left in this one would be asked after.
    called = set(run_script(_SAVE, migrated))

    walk = _walk("From `save_pattern` to SQL and back", engine)
    _assert_described(walk, called, most={"sqlite": 6, "postgresql": 8}[engine])
    assert "queries.sql" in walk


# Imports everything at its first run, so that the second shows what applying a migration calls.
_APPLY = """
import sys
from yoyo.scripts.main import main
from tests.helpers.walks import files_called

_, database, sources = sys.argv
apply = ["--no-config-file", "apply", "--batch", "--database", database, sources]
main([*apply, "--revision", "001"])
with files_called() as called:
    main(apply)
print(*sorted(called), sep="\\n", file=sys.stderr)
"""


def test_the_walk_of_yoyo_apply_is_short_and_described(engine: str, database: str) -> None:
    """From `yoyo apply` to an applied migration there are few files to read; CONTRIBUTING.md names them."""
    if is_server(database):
        url = atomic(database)
    else:
        old_app.make(Path(database))  # it has rows, so that a backup is made
        url = f"sqlite+atomic:///{database}"
    done = subprocess.run(
        [sys.executable, "-c", _APPLY, url, f"sql_migrations/{engine}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )

    walk = _walk("From `yoyo apply` to an applied migration", engine)
    assert "applied 002" in done.stdout
    # 12, and one each for what was split off `atomic.py` (the books) and `files.py` (the order).
    _assert_described(walk, set(done.stderr.split()), most=16)
