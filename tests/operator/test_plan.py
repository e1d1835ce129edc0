"""`poker-therapist plan`: what would be run, what it does, and a script that does it."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from poker_therapist.engines import engine_for
from poker_therapist.location import locate
from poker_therapist.migrations.effects import code, effects
from poker_therapist.migrations.files import Statement, split
from poker_therapist.postgresql.locks import locks
from poker_therapist.schema import migrations_folder, shipped_ids
from tests.helpers import old_app, snapshots
from tests.helpers.cli import Result, command, refused, state_of
from tests.helpers.engines import is_server, postgresql_only, query, run_sql, sqlite_only, with_options
from tests.helpers.project import Project

# PostgreSQL's come with the tests' server.
pytestmark = pytest.mark.usefixtures("programs")


@pytest.mark.parametrize(
    ("text", "does"),
    [
        (
            'DROP TABLE IF EXISTS hands, "my bets";',
            ["drops the table hands and its rows", 'drops the table "my bets" and its rows'],
        ),
        ("DROP TABLE public.hands CASCADE;", ["drops the table public.hands and its rows"]),
        ("ALTER TABLE hands DROP COLUMN a;", ["drops the column hands.a and its values"]),
        (
            "ALTER TABLE hands\n  ADD b int, -- DROP c\n  DROP IF EXISTS a;",
            ["drops the column hands.a and its values"],
        ),
        ("ALTER TABLE hands DROP CONSTRAINT a, ALTER b DROP DEFAULT, ALTER COLUMN c DROP NOT NULL;", []),
        ("ALTER TABLE hands ALTER a TYPE bigint;", ["may rewrite every row of hands"]),
        ("ALTER TABLE hands ADD a uuid DEFAULT gen_random_uuid();", ["may rewrite every row of hands"]),
        ("ALTER TABLE hands ADD a timestamptz DEFAULT now();", []),
        ("DELETE FROM hands;", ["deletes every row of hands"]),
        ("DELETE FROM hands WHERE id = 1;", ["deletes rows of hands"]),
        ("DELETE FROM hands -- WHERE id = 1\n;", ["deletes every row of hands"]),
        ("delete from hands where note = 'x';", ["deletes rows of hands"]),
        ("UPDATE hands SET note = ' WHERE ';", ["updates every row of hands"]),
        ("UPDATE hands SET a = (SELECT 1 FROM bets WHERE b = 1);", ["updates every row of hands"]),
        ("UPDATE hands SET a = 1 WHERE id IN (1);", ["updates rows of hands"]),
        ("TRUNCATE hands, bets;", ["deletes every row of hands, bets"]),
        ("WITH a AS (SELECT 1) DELETE FROM hands;", ["deletes every row of hands"]),
        (
            "WITH a AS (DELETE FROM hands RETURNING *) INSERT INTO bets SELECT * FROM a;",
            ["inserts rows into bets", "deletes every row of hands"],
        ),
        (
            "INSERT INTO hands VALUES (1) ON CONFLICT DO UPDATE SET a = 1;",
            ["inserts rows into hands, or updates them"],
        ),
        ("INSERT OR REPLACE INTO hands VALUES (1);", ["inserts rows into hands, or replaces them"]),
        ("CREATE TABLE held AS SELECT * FROM hands;", ["copies rows into the new table held"]),
        ("CREATE TABLE hands (id INTEGER);", []),
        (
            "DO $$ BEGIN DELETE FROM hands; END $$;",
            ["runs code (DO): its effect cannot be read from its text"],
        ),
        ("CREATE INDEX a ON hands (b);", []),
        ("SELECT 'DROP TABLE hands';", []),
        ("VACUUM;", ["rewrites all tables (VACUUM)"]),
        ("DROP VIEW a;", []),
    ],
)
def test_what_a_statement_does_to_data(text: str, does: list[str]) -> None:
    """Comments, texts and layout make no difference."""
    assert effects([Statement(text, 1)]) == [does]


@pytest.mark.parametrize(
    "text",
    [
        (
            "CREATE TABLE made (id INTEGER); INSERT INTO made SELECT id FROM hands; DROP TABLE hands; "
            "ALTER TABLE made RENAME TO hands;"
        ),
        (
            "CREATE TABLE held AS SELECT * FROM hands; DROP TABLE hands; CREATE TABLE hands (id INTEGER); "
            "INSERT INTO hands SELECT * FROM held;"
        ),
    ],
)
def test_a_table_that_is_rebuilt_is_not_dropped(text: str) -> None:
    """On SQLite the one way to change a constraint, in both of its forms; what is only held is no loss."""
    said = [line for lines in effects(split(f"{text} DROP TABLE made;")) for line in lines]

    assert "rebuilds the table hands from rows that were copied before" in said
    assert not any("drops the table hands" in line for line in said)
    if "held" not in text:
        assert said[-1] == "drops made, which this migration created"


@pytest.mark.parametrize(
    ("text", "mode", "table"),
    [
        ("CREATE INDEX a ON ONLY hands (b)", "SHARE", "hands"),
        ("CREATE UNIQUE INDEX CONCURRENTLY a ON public.hands (b)", "SHARE UPDATE EXCLUSIVE", "public.hands"),
        ("DROP INDEX a", "ACCESS EXCLUSIVE", "a"),
        ("DROP INDEX CONCURRENTLY IF EXISTS a", "SHARE UPDATE EXCLUSIVE", "a"),
        ("ALTER TABLE hands ADD COLUMN a int", "ACCESS EXCLUSIVE", "hands"),
        ("ALTER TABLE hands VALIDATE CONSTRAINT a", "SHARE UPDATE EXCLUSIVE", "hands"),
        ("ALTER TABLE hands VALIDATE CONSTRAINT a, DROP COLUMN b", "ACCESS EXCLUSIVE", "hands"),
        ("ALTER TABLE hands ALTER a SET STATISTICS 9", "SHARE UPDATE EXCLUSIVE", "hands"),
        ("ALTER INDEX a RENAME TO b", "SHARE UPDATE EXCLUSIVE", "a"),
        ("DROP TABLE hands", "ACCESS EXCLUSIVE", "hands"),
        ("TRUNCATE hands", "ACCESS EXCLUSIVE", "hands"),
        ("CREATE TRIGGER a BEFORE UPDATE ON hands EXECUTE FUNCTION f()", "SHARE ROW EXCLUSIVE", "hands"),
        ("UPDATE hands SET a = 1", "ROW EXCLUSIVE", "hands"),
        ("INSERT INTO hands VALUES (1)", "ROW EXCLUSIVE", "hands"),
        ("LOCK TABLE hands IN SHARE MODE", "SHARE", "hands"),
        ("CREATE TABLE IF NOT EXISTS a PARTITION OF hands FOR VALUES IN (1)", "ACCESS EXCLUSIVE", "hands"),
        ("REFRESH MATERIALIZED VIEW CONCURRENTLY a", "EXCLUSIVE", "a"),
        ("VACUUM (FULL, ANALYZE) hands", "ACCESS EXCLUSIVE", "hands"),
        ("VACUUM hands", "SHARE UPDATE EXCLUSIVE", "hands"),
        ("CREATE TABLE a (b int REFERENCES hands (id))", "SHARE ROW EXCLUSIVE", "hands"),
        ("COMMENT ON TABLE hands IS ''", "SHARE UPDATE EXCLUSIVE", "hands"),
    ],
)
def test_which_lock_a_statement_takes(text: str, mode: str, table: str) -> None:
    """By PostgreSQL's manual."""
    assert [(one.mode, one.table) for one in locks(code(text + ";"))] == [(mode, table)]


@pytest.mark.parametrize(
    ("text", "mode", "table"),
    [
        ("CREATE INDEX a ON hands (id)", "SHARE", "hands"),
        ("ALTER TABLE hands ADD COLUMN a int", "ACCESS EXCLUSIVE", "hands"),
        (
            "ALTER TABLE hands ADD CONSTRAINT a FOREIGN KEY (id) REFERENCES bets (id)",
            "SHARE ROW EXCLUSIVE",
            "hands",
        ),
        ("ALTER TABLE hands ALTER id SET STATISTICS 9", "SHARE UPDATE EXCLUSIVE", "hands"),
        (
            "CREATE TRIGGER a BEFORE UPDATE ON hands EXECUTE FUNCTION suppress_redundant_updates_trigger()",
            "SHARE ROW EXCLUSIVE",
            "hands",
        ),
        ("UPDATE hands SET id = 1", "ROW EXCLUSIVE", "hands"),
        ("TRUNCATE hands", "ACCESS EXCLUSIVE", "hands"),
        ("COMMENT ON TABLE hands IS ''", "SHARE UPDATE EXCLUSIVE", "hands"),
        ("CREATE TABLE a (b int REFERENCES bets (id))", "SHARE ROW EXCLUSIVE", "bets"),
    ],
)
def test_the_server_takes_the_lock_that_is_foretold(
    text: str, mode: str, table: str, postgresql_url: str
) -> None:
    """As pg_locks shows it before the transaction ends."""
    run_sql(postgresql_url, "CREATE TABLE hands (id int); CREATE TABLE bets (id int PRIMARY KEY)")

    assert (mode, table) in [(one.mode, one.table) for one in locks(code(text))]
    assert _held(postgresql_url, text, table) == mode


def _held(url: str, text: str, table: str) -> str:
    """Return the strongest lock that a statement holds on a table."""
    with psycopg.connect(url) as connection:
        connection.execute(text.encode())
        modes = {
            re.sub(r"(?<=[a-z])(?=[A-Z])", " ", str(mode)).upper().removesuffix(" LOCK")
            for (mode,) in connection.execute(
                "SELECT mode FROM pg_locks WHERE relation = %s::regclass AND pid = pg_backend_pid()", (table,)
            )
        }
        connection.rollback()
    order = (
        "ACCESS SHARE",
        "ROW SHARE",
        "ROW EXCLUSIVE",
        "SHARE UPDATE EXCLUSIVE",
        "SHARE",
        "SHARE ROW EXCLUSIVE",
        "EXCLUSIVE",
        "ACCESS EXCLUSIVE",
    )
    return max(modes, key=order.index)


def test_a_plan_shows_each_statement_and_writes_nothing(two_migrations: Project) -> None:
    """With its place; there is no database yet, or an empty one."""
    two_migrations.write(
        "003_drop", "-- depends: 002_add_bets\n\nDROP TABLE hands;\nCREATE INDEX by_id\nON bets (id);", "-- x"
    )
    ran = _plan(two_migrations)

    assert ran.code == 0
    assert ran.error.startswith("There is no database" * (not is_server(two_migrations.database)))
    assert [line for line in ran.lines if "takes" not in line] == [
        "apply 001_add_hands, in one transaction",
        "  sql/001_add_hands.sql:1: CREATE TABLE hands (id INTEGER PRIMARY KEY);",
        "apply 002_add_bets, in one transaction",
        "  sql/002_add_bets.sql:2: CREATE TABLE bets (id INTEGER);",
        "apply 003_drop, in one transaction",
        "  sql/003_drop.sql:3: DROP TABLE hands;",
        "      drops the table hands and its rows",
        "  sql/003_drop.sql:4: CREATE INDEX by_id ON bets (id);",
    ]
    assert [line.strip() for line in ran.lines if "takes" in line] == (
        [
            "takes ACCESS EXCLUSIVE on hands: blocks reads and writes",
            "takes SHARE on bets: blocks writes",
        ]
        if is_server(two_migrations.database)
        else []
    )
    assert two_migrations.is_untouched()


@postgresql_only
def test_nobody_waits_for_a_table_that_the_same_transaction_has_made(project: Project) -> None:
    """Outside of a transaction everybody sees it at once."""
    text = "CREATE TABLE public.Hands (id INT); CREATE INDEX a ON hands (id);"
    project.write("001_add_hands", text)
    project.write(
        "002_add", f"-- depends: 001_add_hands\n-- transactional: false\n{text.replace('ands', 'eads')}"
    )
    planned = _plan(project, "--json").json["migrations"]

    assert [[len(each["locks"]) for each in one["statements"]] for one in planned] == [[0, 0], [0, 1]]


def test_a_plan_in_json(two_migrations: Project) -> None:
    plan = _plan(two_migrations, "--to", "001", "--json").json

    assert plan["migrations"] == [
        {
            "id": "001_add_hands",
            "direction": "apply",
            "file": "sql/001_add_hands.sql",
            "transactional": True,
            "found": [],
            "statements": [
                {
                    "line": 1,
                    "sql": "CREATE TABLE hands (id INTEGER PRIMARY KEY);",
                    "effects": [],
                    "locks": [],
                }
            ],
        }
    ]


def test_a_plan_of_a_rollback(two_migrations: Project) -> None:
    """The last one, or all from one on; what rollback would refuse is refused."""
    assert two_migrations.yoyo("apply").returncode == 0
    before = snapshots.everything(two_migrations.database)

    def ids(*more: str) -> list[Any]:
        return [one["id"] for one in _plan(two_migrations, "--rollback", "--json", *more).json["migrations"]]

    assert _plan(two_migrations).out == f"{_name(two_migrations)}: nothing to run.\n"
    assert ids() == ["002_add_bets"]
    assert ids("--to", "001") == ["002_add_bets", "001_add_hands"]
    assert snapshots.everything(two_migrations.database) == before
    assert "is not a migration" in _refused(two_migrations, "--to", "009")


def test_options_that_contradict_each_other(two_migrations: Project) -> None:
    """A wrong call, and nothing is printed for a program to run."""
    for wrong in (["--output", "x"], ["--script", "--json"]):
        ran = _plan(two_migrations, *wrong)
        assert (ran.code, ran.out.startswith("{") if "--json" in wrong else ran.out == "") == (2, True)


def _name(project: Project) -> str:
    return str(_plan(project, "--json").json["database"])


def _arguments(project: Project) -> list[str]:
    ini = project.folder / "yoyo.ini"
    ini.write_text("[DEFAULT]\nsources = sql\n")
    return ["plan", "--database", str(project.database)]


def _plan(project: Project, *arguments: str) -> Result:
    return command(*_arguments(project), *arguments, folder=project.folder)


def _refused(project: Project, *arguments: str) -> str:
    return refused(*_arguments(project), *arguments, folder=project.folder)


# The script


def run_script(database: str | Path, script: str) -> subprocess.CompletedProcess[str]:
    """Run a script as its first lines say, which must end well only if all was done.

    Where the program sqlite3 is not installed, Python's own SQLite runs it, told to stop at the first error.
    """
    calls = re.findall(r"^--     (.*)$", script, re.MULTILINE)
    if not is_server(database) and not shutil.which("sqlite3"):
        mode = "rwc" if len(calls) > 1 else "rw"
        calls = [shlex.join((sys.executable, "-c", _SQLITE3, str(database), mode)) + " < plan.sql"]
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "plan.sql").write_text(script, encoding="utf-8")
        return subprocess.run(
            ["bash", "-c", " && ".join(calls)],
            cwd=folder,
            capture_output=True,
            text=True,
            encoding="utf-8",
            env=os.environ | {"LC_ALL": "C.UTF-8", "PGOPTIONS": "-c timezone=Asia/Kolkata", "HOME": folder},
            check=False,
        )


def _assert_well(ran: subprocess.CompletedProcess[str], shown: str = "") -> None:
    """Nothing was said, but the rows that migrations select, and at the end what was done."""
    assert (ran.returncode, ran.stderr) == (0, "")
    assert re.fullmatch(re.escape(shown) + r"done: \d+ migrations? (applied|rolled back)\n", ran.stdout)


_SQLITE3 = """
import os, sqlite3, sys
os.umask(0o077)
connection = sqlite3.connect("file:{}?mode={}".format(*sys.argv[1:]), isolation_level=None, uri=True)
if sys.argv[2] == "rwc":
    connection.execute("PRAGMA user_version = 0")
statement = ""
for line in sys.stdin:
    if statement or (line.strip() and not line.startswith((".", "--"))):
        statement += line
        if sqlite3.complete_statement(statement):
            rows = connection.execute(statement).fetchall()
            if not statement.startswith("PRAGMA"):
                print(*("|".join(map(str, row)) for row in rows), sep="\\n", end="\\n" if rows else "")
            statement = ""
"""


def test_the_names_of_a_script_are_no_migrations_names(project: Project) -> None:
    """Whatever a migration calls its tables, and whether it makes them again."""
    names = ("plan_broken", "plan_keys", "plan_before", "plan_now", "PLAN_problem", "plan__now", "plan_stops")
    project.write(
        "001_add_plans",
        "".join(f"CREATE TABLE {name} (id INTEGER PRIMARY KEY);\n" for name in names),
        "".join(f"DROP TABLE {name};\n" for name in names),
    )
    _assert_well(run_script(project.database, _plan(project, "--script").out))
    assert sorted(name.lower() for name in project.tables()) == sorted(name.lower() for name in names)
    _assert_well(run_script(project.database, _plan(project, "--rollback", "--script").out))
    assert project.tables() == []


@pytest.fixture
def twin(project: Project, request: pytest.FixtureRequest) -> Callable[[], str]:
    """Return the maker of a second database with nothing in it."""

    def make() -> str:
        if not is_server(project.database):
            return str(project.folder / "twin.db")
        databases = request.getfixturevalue("databases")
        context = databases.fresh()
        request.addfinalizer(lambda: context.__exit__(None, None, None))
        return str(context.__enter__())

    return make


def _bookkeeping(database: str | Path) -> dict[str, list[Any]]:
    """Return the rows of yoyo's tables and ours without times, ids, users and hosts."""
    rows = {
        "migration": query(database, "SELECT migration_hash, migration_id FROM _yoyo_migration ORDER BY 2"),
        "log": query(
            database,
            "SELECT migration_hash, migration_id, operation, comment FROM _yoyo_log ORDER BY created_at_utc",
        ),
        "version": query(database, "SELECT version FROM _yoyo_version"),
        "texts": query(
            database,
            "SELECT migration_table, migration_id, applied_at IS NULL, checksum, apply_sql, rollback_sql "
            "FROM _migration_text ORDER BY 2",
        ),
    }
    if "_migration_adopted" in _all_tables(database):
        rows["adopted"] = query(database, "SELECT * FROM _migration_adopted ORDER BY 1, 2, 3")
    return rows


def _all_tables(database: str | Path) -> list[str]:
    found = (
        "SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1"
        if is_server(database)
        else "SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY 1"
    )
    return [name for (name,) in query(database, found)]


def _assert_same(left: str | Path, right: str | Path) -> None:
    """Schema, rows, counters and what is recorded; on SQLite to the letter of each table's SQL."""
    assert snapshots.everything(left) == snapshots.everything(right)
    assert _bookkeeping(left) == _bookkeeping(right)
    assert _all_tables(left) == _all_tables(right)
    if not is_server(left):
        texts = "SELECT type, name, sql FROM sqlite_schema WHERE name LIKE '#_%' ESCAPE '#' ORDER BY 1, 2"
        assert query(left, texts) == query(right, texts)


def _status(database: str | Path, folder: Path) -> Result:
    return command("status", "--database", str(database), "--no-config", folder=folder)


@pytest.fixture
def shipped(engine: str, tmp_path: Path) -> Path:
    """An ini file that names the project's own migrations."""
    (tmp_path / "yoyo.ini").write_text(f"[DEFAULT]\nsources = {migrations_folder(engine)}\n")
    return tmp_path


def _script(database: str | Path, folder: Path, *arguments: str) -> str:
    ran = command("plan", "--script", "--database", str(database), *arguments, folder=folder)

    assert (ran.code, ran.error) == (0, "")
    return ran.out


@pytest.mark.slow
def test_the_script_leaves_what_apply_leaves(
    engine: str, shipped: Path, project: Project, twin: Callable[[], str]
) -> None:
    """The project's own migrations, up and then all the way down, by both programs."""
    ours, other = project.database, twin()
    script = _script(ours, shipped)
    if engine == "sqlite":
        assert not Path(ours).exists()
    assert f"poker-therapist backup --database {shlex.quote(str(ours))}`" in script
    ran = run_script(ours, script)
    _assert_well(ran)
    if engine == "sqlite":
        assert Path(ours).stat().st_mode & 0o777 == 0o600
    _yoyo(project, other, engine, "apply")

    _assert_same(ours, other)
    status = _status(ours, shipped)
    assert (status.code, status.lines[-1].rpartition(": ")[2]) == (0, "up to date.")
    assert _script(ours, shipped).endswith(": nothing to run.\n")

    first = min(shipped_ids(engine))
    ran = run_script(ours, _script(ours, shipped, "--rollback", "--to", first))
    _assert_well(ran)
    _yoyo(project, other, engine, "rollback", "--revision", first)
    _assert_same(ours, other)


def _yoyo(project: Project, database: str, engine: str, *arguments: str) -> None:
    scheme = "postgresql+atomic:" if engine == "postgresql" else "sqlite+atomic:///"
    url = database.replace("postgresql:", scheme) if engine == "postgresql" else f"{scheme}{database}"
    yoyo = Path(sys.executable).with_name("yoyo")
    subprocess.run(
        [
            *(sys.executable, str(yoyo), *arguments, "--no-config-file", "--batch", "--database", url),
            str(migrations_folder(engine)),
        ],
        cwd=project.folder,
        check=True,
        capture_output=True,
    )


@sqlite_only
def test_the_script_adopts_what_apply_adopts(shipped: Path, project: Project) -> None:
    """A database of the earlier app: the tables that 001 finds are recorded, so no rollback drops them."""
    old_app.make(project.database)
    other = shutil.copy(project.database, project.folder / "other.db")
    plan = command("plan", "--json", "--database", str(project.database), folder=shipped).json
    assert plan["migrations"][0]["found"] == sorted(old_app.TABLES)

    ran = run_script(project.database, _script(project.database, shipped))
    _assert_well(ran)
    _yoyo(project, str(other), "sqlite", "apply")

    _assert_same(project.database, other)
    assert _status(project.database, shipped).code == 0
    message = refused(
        "plan", "--rollback", "--to", "001", "--database", str(project.database), folder=shipped
    )
    assert "its rollback would drop what was there before" in message


ODD = "it's \"odd\": $$ $plan$ ' :name :'name' \\ %s -- ; ä 🂡\n.quit\n\\q\ngo\n/\n"


def test_texts_are_kept_to_the_letter(project: Project) -> None:
    """Quotes of every kind, dollars, backslashes, and lines that the programs would take for commands."""
    literal = ODD.replace("'", "''")
    project.write(
        "001_add_odd",
        f"-- it's {ODD.splitlines()[0]}\nCREATE TABLE odd (note TEXT);\n\n/* ' */\nINSERT INTO odd "
        f"VALUES ('{literal}')",
        f"/* {ODD} */\nDROP TABLE odd -- the end",
    )
    _run(project)

    assert query(project.database, "SELECT note FROM odd") == [(ODD,)]
    (kept,) = query(project.database, "SELECT apply_sql, rollback_sql FROM _migration_text")
    assert kept == tuple((project.sql / f"001_add_odd{end}.sql").read_text() for end in ("", ".rollback"))
    assert project.yoyo("apply").returncode == 0  # unedited
    _run(project, "--rollback")
    assert project.tables() == []


def _run(project: Project, *arguments: str, shown: str = "") -> None:
    ran = _plan(project, "--script", *arguments)
    assert (ran.code, ran.error) == (0, "")
    _assert_well(run_script(project.database, ran.out), shown)


def test_a_script_that_is_late_does_nothing(two_migrations: Project) -> None:
    """Somebody has applied a part meanwhile, or rolled it back, or nothing is there that was."""
    early = _plan(two_migrations, "--script").out
    assert two_migrations.yoyo("apply", "--revision", "001").returncode == 0
    late = _plan(two_migrations, "--script").out
    before = snapshots.everything(two_migrations.database)
    ran = run_script(two_migrations.database, early)

    assert ran.returncode != 0
    assert "this database is not in the state of the plan" in ran.stderr
    assert snapshots.everything(two_migrations.database) == before
    assert two_migrations.yoyo("rollback").returncode == 0
    before = snapshots.everything(two_migrations.database)
    ran = run_script(two_migrations.database, late)
    assert ran.returncode != 0
    assert "this database is not in the state of the plan" in ran.stderr
    assert snapshots.everything(two_migrations.database) == before


# What is run after the plan was made, and what undoes it; what cannot be undone makes another state each.
SINCE = {
    "INSERT INTO _migration_text VALUES ('_yoyo_migration', '009', NULL, 'a', 'b', 'c')": (
        "DELETE FROM _migration_text WHERE migration_id = '009'"
    ),
    "UPDATE _migration_text SET checksum = 'x' || checksum": (
        "UPDATE _migration_text SET checksum = substr(checksum, 2)"
    ),
    "UPDATE _migration_text SET applied_at = 'x' || applied_at": (
        "UPDATE _migration_text SET applied_at = substr(applied_at, 2)"
    ),
    "UPDATE _migration_text SET applied_at = NULL": "",
    "DELETE FROM _migration_text": "",
    "DROP TABLE _migration_text": "",
}


def test_a_script_does_nothing_where_something_else_was_run_since(two_migrations: Project) -> None:
    """The same ids are applied; one was interrupted, or another text was applied, by plain yoyo say."""
    assert two_migrations.yoyo("apply", "--revision", "001").returncode == 0
    script = _plan(two_migrations, "--script").out
    for since, undoing in SINCE.items():
        two_migrations.run_sql(since)
        before = snapshots.everything(two_migrations.database)
        ran = run_script(two_migrations.database, script)

        assert ran.returncode != 0
        assert "this database is not in the state of the plan" in ran.stderr
        assert ran.stdout == ""
        assert snapshots.everything(two_migrations.database) == before
        if undoing:
            two_migrations.run_sql(undoing)


def test_a_script_says_what_its_rollback_deletes(two_migrations: Project) -> None:
    """As counted when it was made; nothing where nothing goes."""
    assert two_migrations.yoyo("apply").returncode == 0
    assert "deletes" not in _plan(two_migrations, "--script", "--rollback", "--to", "001").out
    two_migrations.run_sql(
        "INSERT INTO bets VALUES (7); INSERT INTO hands VALUES (1); INSERT INTO hands VALUES (2);"
    )
    script = _plan(two_migrations, "--script", "--rollback", "--to", "001").out
    (said,) = [line for line in script.splitlines() if "deletes" in line]

    assert re.fullmatch(
        r"-- This deletes 1 row of bets, 2 rows of hands, as counted at [-0-9]+ [:0-9]+ \(UTC\)\.", said
    )
    assert script.index(said) < script.index("BEGIN")
    _assert_well(run_script(two_migrations.database, script))
    assert two_migrations.tables() == []


@sqlite_only
def test_a_script_makes_no_database_by_accident(two_migrations: Project) -> None:
    """Its call leaves no file where the path is wrong; sqlite3 itself makes an empty one, and that is all."""
    assert two_migrations.yoyo("apply", "--revision", "001").returncode == 0
    script = _plan(two_migrations, "--script").out
    two_migrations.database.unlink()
    ran = run_script(two_migrations.database, script)

    assert ran.returncode != 0
    assert two_migrations.is_untouched()
    if shutil.which("sqlite3"):
        ran = subprocess.run(
            ["sqlite3", two_migrations.database], input=script, capture_output=True, text=True, check=False
        )
        assert ran.returncode != 0
        assert "there is no database here" in ran.stderr
        assert two_migrations.database.stat().st_size == 0


def test_a_script_runs_each_statement_to_the_letter(project: Project) -> None:
    """What its program would read otherwise; only what a migration selects is shown."""
    if is_server(project.database):
        text = (
            'CREATE TABLE IF NOT EXISTS odd (a int, "DBNAME" int);\n'
            "CREATE TABLE IF NOT EXISTS odd (a int);\nDO $$ BEGIN RAISE NOTICE 'x'; END $$;\n"
            "INSERT INTO odd VALUES (1, 2);\n"
            "SELECT (ARRAY[5,6,7])[a:\"DBNAME\"] AS x, (ARRAY[5,6])[:a]::text, ':HOST' /* :HOST */ FROM odd;"
        )
        shown = "   x   | array |"
    else:
        text = (
            "CREATE TABLE odd (a TEXT DEFAULT '\n.quit\ngo\n/\n',\n.5 INTEGER);".replace(".5", "b")
            + "\nPRAGMA table_info(odd);\nINSERT INTO odd (b) VALUES (\n.5 * 2\n);\nSELECT b FROM odd;"
        )
        shown = "1\n"
    project.write("001_odd", text + "\n-- the end;", "DROP TABLE odd -- the end;")
    last = "" if is_server(project.database) else "PRAGMA user_version -- the end;"
    project.write("002_more", f"-- depends: 001_odd\nCREATE TABLE more (id INT);{last}", "DROP TABLE more;")
    script = _plan(project, "--script").out
    ran = run_script(project.database, script)

    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.startswith(shown)
    assert ran.stdout.splitlines()[-1] == "done: 2 migrations applied"
    if is_server(project.database):
        assert "{5,6}" in ran.stdout
        assert ":HOST" in ran.stdout
    assert project.applied() == ["001_odd", "002_more"]
    _run(project, "--rollback", "--to", "001")
    assert project.tables() == []


@pytest.mark.parametrize(
    ("text", "line", "why"),
    [
        ("CREATE TRIGGER a AFTER INSERT ON b BEGIN SELECT 1;", 2, "this statement is incomplete"),
        ("SELECT 8\n/\n4;", 3, "the line '/'"),
        ("SELECT 8 AS\n Go -- x\n;", 3, "the line 'Go'"),
        ("# x\nSELECT 1;", 2, "the line '#'"),
        ("SELECT '?', ?;", 2, "? is a parameter"),
        ("SELECT\n:name;", 3, ": is a parameter"),
    ],
)
@sqlite_only
def test_what_sqlite3_would_read_otherwise_makes_no_script(
    text: str, line: int, why: str, project: Project
) -> None:
    project.write("001_odd", f"-- x\n{text}")
    message = _refused(project, "--script")

    assert message.startswith(f"sql/001_odd.sql:{line}: sqlite3 would not run this unchanged: ")
    assert why in message


@pytest.mark.parametrize(
    ("text", "line", "why"),
    [
        ("SELECT 1\n\\! touch x\n;", 3, r"\! is a command of psql"),
        ("SELECT 1 \\gexec", 2, r"\gexec is a command of psql"),
        ("SELECT 'no end;", 2, "begins with this ' is not closed"),
        ("SELECT\n$a$ no end;", 3, "begins with this $ is not closed"),
        ("SET standard_conforming_strings = off;", 2, "changes how string literals are read"),
        ("COPY a FROM STDIN;", 2, "COPY with STDIN or STDOUT cannot run"),
    ],
)
@postgresql_only
def test_what_psql_would_read_otherwise_makes_no_script(
    text: str, line: int, why: str, project: Project
) -> None:
    project.write("001_odd", f"-- x\n{text}")
    message = _refused(project, "--script")

    assert message.startswith(f"sql/001_odd.sql:{line}: psql would not run this unchanged: ")
    assert why in message


def test_what_fails_in_a_script_leaves_nothing_of_its_migration(two_migrations: Project) -> None:
    """And nothing after it is run."""
    two_migrations.write(
        "003_fail", "-- depends: 002_add_bets\nDROP TABLE hands;\nSELECT * FROM nowhere;", "-- x"
    )
    two_migrations.write(
        "004_more", "-- depends: 003_fail\nCREATE TABLE moods (id INT);", "DROP TABLE moods;"
    )
    script = _plan(two_migrations, "--script").out
    ran = run_script(two_migrations.database, script)

    assert ran.returncode != 0
    assert "nowhere" in ran.stderr
    assert two_migrations.tables() == ["bets", "hands"]
    assert two_migrations.applied() == ["001_add_hands", "002_add_bets"]


def test_a_script_takes_away_nothing_that_no_migration_has_made(two_migrations: Project) -> None:
    """As apply: a column of the operator's goes with no rebuild."""
    two_migrations.write(
        "003_rebuild",
        "-- depends: 002_add_bets\nCREATE TABLE held AS SELECT id FROM bets;\nDROP TABLE bets;\n"
        "ALTER TABLE held RENAME TO bets;",
        "-- x",
    )
    assert two_migrations.yoyo("apply", "--revision", "002").returncode == 0
    two_migrations.run_sql("ALTER TABLE bets ADD COLUMN note TEXT; CREATE INDEX mine ON bets (note);")
    before = snapshots.everything(two_migrations.database)
    ran = run_script(two_migrations.database, _plan(two_migrations, "--script").out)

    assert ran.returncode != 0
    assert "this would drop what no migration created" in ran.stderr
    assert snapshots.everything(two_migrations.database) == before


def test_a_script_checks_the_keys_that_apply_checks(project: Project) -> None:
    """A row without its parent is refused; one that was so before may stay."""
    deferring = "SET CONSTRAINTS ALL DEFERRED;" if is_server(project.database) else ""
    project.write("001_harm", f"{deferring}DELETE FROM hands WHERE id = 2;")
    project.run_sql(
        "CREATE TABLE hands (id INTEGER PRIMARY KEY);"
        "CREATE TABLE bets (id INTEGER, hand INTEGER REFERENCES hands (id) DEFERRABLE);"
        "INSERT INTO hands VALUES (1); INSERT INTO hands VALUES (2); INSERT INTO bets VALUES (1, 1);"
    )
    if not is_server(project.database):
        project.run_sql("INSERT INTO bets VALUES (8, 99);")
    script = _plan(project, "--script").out
    project.run_sql("INSERT INTO bets VALUES (2, 2);")
    before = snapshots.everything(project.database)
    ran = run_script(project.database, script)

    assert ran.returncode != 0
    assert ("a row would violate a foreign key" in ran.stderr) or ("foreign key" in ran.stderr)
    assert snapshots.everything(project.database) == before
    project.run_sql("DELETE FROM bets WHERE id = 2;")
    assert run_script(project.database, script).returncode == 0
    assert query(project.database, "SELECT count(*) FROM hands") == [(1,)]


@postgresql_only
def test_what_a_migration_sets_ends_with_it_in_a_script(project: Project) -> None:
    """Its search path and its tables for the session; what no transaction holds is recorded, too."""
    project.write(
        "001_set", "CREATE SCHEMA elsewhere; SET search_path = elsewhere; SET DateStyle = 'German';", "-- x"
    )
    project.write(
        "002_index",
        "-- transactional: false\n-- depends: 001_set\nSET search_path = elsewhere;\nVACUUM;\n"
        "CREATE TEMPORARY TABLE moods (id INT);",
        "-- x",
    )
    project.write("003_add", "-- depends: 002_index\nCREATE TABLE moods (id INT);", "DROP TABLE moods;")
    _run(project)

    assert project.tables() == ["moods"]
    assert project.yoyo("apply").stdout == "nothing to apply: the database is up to date\n"


def test_a_script_of_nothing_and_a_plan_that_is_refused(two_migrations: Project) -> None:
    """What cannot be applied makes no script."""
    two_migrations.write("003_bad", "-- depends: 002_add_bets\nCOMMIT;", "-- x")
    before = state_of(two_migrations.folder)

    assert "COMMIT would end the transaction" in _refused(two_migrations, "--script")
    after = {name: state for name, state in state_of(two_migrations.folder).items() if name != "yoyo.ini"}
    assert after == before


def test_a_hook_runs_after_what_a_script_applies(two_migrations: Project, twin: Callable[[], str]) -> None:
    """As after apply: it is logged and never recorded. Where nothing is pending, it is not run."""
    two_migrations.write("post-apply", "INSERT INTO bets VALUES (7);", None)
    _run(two_migrations)
    other = twin()
    url = (
        other.replace("postgresql:", "postgresql+atomic:")
        if is_server(other)
        else f"sqlite+atomic:///{other}"
    )
    yoyo = Path(sys.executable).with_name("yoyo")
    subprocess.run(
        [sys.executable, str(yoyo), "apply", "--no-config-file", "--batch", "--database", url, "sql"],
        cwd=two_migrations.folder,
        check=True,
        capture_output=True,
    )

    _assert_same(two_migrations.database, other)
    assert two_migrations.query("SELECT id FROM bets") == [(7,)]
    assert _plan(two_migrations).out.endswith(": nothing to run.\n")


def test_what_was_interrupted_is_finished_by_a_script(two_migrations: Project) -> None:
    """A migration that no transaction holds, stopped in its middle."""
    text = "-- transactional: false\n-- depends: 002_add_bets\nCREATE TABLE IF NOT EXISTS moods (id INT);\n"
    path = two_migrations.write("003_add_moods", f"{text}SELECT none;", "DROP TABLE moods;")
    two_migrations.refuses("apply")
    assert snapshots.interrupted(two_migrations.database) == ["003_add_moods"]
    path.write_text(text)
    _run(two_migrations)

    assert two_migrations.applied()[-1] == "003_add_moods"
    assert snapshots.interrupted(two_migrations.database) == []
    assert two_migrations.yoyo("rollback").returncode == 0


def test_a_script_that_is_interrupted_can_be_finished_by_apply(two_migrations: Project) -> None:
    """It leaves what the killed command would leave."""
    text = "-- transactional: false\n-- depends: 002_add_bets\nCREATE TABLE IF NOT EXISTS moods (id INT);\n"
    path = two_migrations.write("003_add_moods", f"{text}SELECT none;", "DROP TABLE moods;")
    ran = run_script(two_migrations.database, _plan(two_migrations, "--script").out)

    assert ran.returncode != 0
    assert snapshots.interrupted(two_migrations.database) == ["003_add_moods"]
    assert two_migrations.applied() == ["001_add_hands", "002_add_bets"]
    path.write_text(text)
    assert two_migrations.yoyo("apply").returncode == 0
    assert two_migrations.applied()[-1] == "003_add_moods"


def test_no_script_is_made_of_what_a_database_has_kept(two_migrations: Project) -> None:
    """A file that comes from elsewhere could hold a command of the shell, which both programs run."""
    assert two_migrations.yoyo("apply").returncode == 0
    for path in two_migrations.sql.glob("002*"):
        path.unlink()

    assert "002_add_bets has no files here" in _refused(two_migrations, "--rollback", "--script")
    assert "(kept in the database)" in _plan(two_migrations, "--rollback").out


@postgresql_only
def test_a_script_works_in_the_schema_that_the_plan_was_made_in(project: Project) -> None:
    """Also where psql is told nothing of it."""
    project.run_sql("CREATE SCHEMA rex;")
    project.write("001_it's", "CREATE TABLE hands (id INT);", "DROP TABLE hands;")
    there = with_options(str(project.database), "schema=rex")
    _arguments(project)
    ran = command("plan", "--script", "--database", there, folder=project.folder)
    _assert_well(run_script(project.database, ran.out))

    assert project.is_untouched()
    assert snapshots.applied(project.database, "rex") == ["001_it's"]
    status = command("status", "--database", there, folder=project.folder)
    assert (status.code, status.lines[-1].rpartition(": ")[2]) == (0, "up to date.")


@postgresql_only
def test_a_script_waits_for_nobody_who_migrates(two_migrations: Project) -> None:
    """As two runs of apply exclude each other."""
    script = _plan(two_migrations, "--script").out
    with engine_for(locate(str(two_migrations.database))).backend() as other, other.migration_lock():
        ran = run_script(two_migrations.database, script)

    assert ran.returncode != 0
    assert "another session is migrating this database" in ran.stderr
    assert two_migrations.is_untouched()
    _assert_well(run_script(two_migrations.database, script))


@pytest.mark.parametrize(
    "text",
    [
        "WITH " + "(UPDATE a " * 30_000,
        "CREATE " + "TABLE " * 20_000,
        "CREATE INDEX " + "a ON " * 20_000,
        "ALTER TABLE t " + "DROP a," * 4_000,
        "DROP TABLE " + ", ".join(f"a{number}" for number in range(10_000)),
        "VACUUM (" + "FULL " * 8_000,
        "/*" * 50_000,
    ],
    ids=lambda text: text[:20],
)
def test_a_text_that_was_made_to_take_long_is_judged_soon(text: str) -> None:
    """What a database has kept may be anybody's."""
    began = time.process_time()
    effects([Statement(text, 1)])
    locks(code(text)[:100_000])

    assert time.process_time() - began < 10


def test_a_rollback_of_no_database_is_refused(tmp_path: Path) -> None:
    """As the rollback itself is."""
    message = refused("plan", "--rollback", "-d", "none.db", folder=tmp_path)

    assert message == f"there is no database {tmp_path}/none.db: correct the path"
