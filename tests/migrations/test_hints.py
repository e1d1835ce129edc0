"""Where everybody stumbles, the message says what to do; and what a migration selects is shown."""

import pytest

from tests.helpers.engines import per_engine, postgresql_only, sqlite_only
from tests.helpers.project import Project

OUTSIDE = "move it to a separate migration with `-- transactional: false` in its header"


@per_engine(
    {
        "sqlite": [
            ("VACUUM;", "cannot VACUUM from within a transaction"),
            ("PRAGMA synchronous = OFF;", "Safety level may not be changed inside a transaction"),
        ],
        "postgresql": [
            ("CREATE INDEX CONCURRENTLY a ON hands (id);", "cannot run inside a transaction block"),
            ("REINDEX TABLE CONCURRENTLY hands;", "cannot run inside a transaction block"),
            ("DROP INDEX CONCURRENTLY hands_pkey;", "cannot run inside a transaction block"),
            ("VACUUM;", "cannot run inside a transaction block"),
            ("CREATE DATABASE other;", "cannot run inside a transaction block"),
            ("ALTER SYSTEM SET work_mem = '4MB';", "cannot run inside a transaction block"),
        ],
    }
)
def test_what_no_transaction_may_hold_names_the_directive(case: tuple[str, str], project: Project) -> None:
    """And with it, it runs."""
    statement, reason = case
    project.write(
        "001_add_hands",
        f"CREATE TABLE hands (id INTEGER PRIMARY KEY);\n-- so\n{statement}",
        "DROP TABLE hands;",
    )
    message = project.refuses("apply")

    assert message.startswith("sql/001_add_hands.sql:3: ")
    assert f"{reason}: {OUTSIDE}" in message
    assert "All changes of 001_add_hands were undone." in message
    if statement == "VACUUM;":
        project.write("001_add_hands", "CREATE TABLE hands (id INTEGER PRIMARY KEY);", "DROP TABLE hands;")
        project.write("002_clean", f"-- transactional: false\n-- depends: 001_add_hands\n{statement}")
        assert project.yoyo("apply").returncode == 0


@sqlite_only
@pytest.mark.parametrize(
    ("statement", "advice"),
    [
        ("PRAGMA journal_mode = DELETE;", f"PRAGMA journal_mode cannot run in a transaction: {OUTSIDE}"),
        (
            "pragma foreign_keys=on;",
            "this has no effect in a transaction: delete it. Foreign keys are off while a",
        ),
    ],
)
def test_what_has_no_effect_in_a_transaction_is_said(statement: str, advice: str, project: Project) -> None:
    """SQLite itself says nothing; a file that worked goes on working."""
    project.write("001_set", f"SELECT 1;\n{statement}")
    ran = project.yoyo("apply")

    assert ran.returncode == 0
    assert f"sql/001_set.sql:2: {advice}" in ran.stdout


@sqlite_only
def test_vacuum_in_a_transaction_of_its_own_gets_no_such_hint(project: Project) -> None:
    """There the file itself has begun it."""
    project.write("001_clean", "-- transactional: false\nBEGIN;\nVACUUM;\nCOMMIT;")

    assert OUTSIDE not in project.refuses("apply")


@postgresql_only
def test_a_new_value_of_an_enum_is_used_in_the_next_migration(project: Project) -> None:
    """PostgreSQL lets no transaction use a value that it has added."""
    project.write("001_add", "CREATE TYPE mood AS ENUM ('calm');", "DROP TYPE mood;")
    project.write("002_tilt", "-- depends: 001_add\nALTER TYPE mood ADD VALUE 'tilt';\nSELECT 'tilt'::mood;")
    message = project.refuses("apply")

    assert message.startswith("sql/002_tilt.sql:3: ")
    assert "a transaction cannot use an enum value that it has added: use it in the next migration" in message
    project.write("002_tilt", "-- depends: 001_add\nALTER TYPE mood ADD VALUE 'tilt';")
    project.write("003_use", "-- depends: 002_tilt\nSELECT 'tilt'::mood;")
    assert project.yoyo("apply").returncode == 0


@pytest.mark.parametrize(
    ("text", "line", "command"),
    [
        ("\\connect game\n\nSELECT 1;", 1, "\\connect"),
        ("-- PostgreSQL database dump\n\\restrict abc\nSET lock_timeout = 0;\n", 2, "\\restrict"),
        ("SELECT 1;\n\\copy hands from 'x'\n", 2, "\\copy"),
        ("SELECT 1;\n\\.\n", 2, "\\."),
    ],
)
def test_what_is_psqls_is_said_to_be(text: str, line: int, command: str, project: Project) -> None:
    """Before anything is run."""
    project.write("001_dump", text)

    assert project.refuses("apply").startswith(
        f"sql/001_dump.sql:{line}: {command} is a command of psql, not SQL: remove it"
    )
    assert project.is_untouched()


@sqlite_only
def test_what_is_the_program_sqlite3s_is_said_to_be(project: Project) -> None:
    project.write("001_dump", "SELECT 1;\n.mode csv\nSELECT 2;")

    assert "sql/001_dump.sql:2: .mode is a command of sqlite3" in project.refuses("apply")


@postgresql_only
def test_what_is_psqls_in_the_middle_of_a_statement(project: Project) -> None:
    """Where no semicolon ends what stands before it; a backslash in a text is none."""
    project.write("001_dump", "SELECT 1 AS a\n\\gexec\n")

    said = "\\gexec is a command of psql, not SQL: remove it"
    assert project.refuses("apply").startswith(f'sql/001_dump.sql:2: syntax error at or near "\\": {said}')
    project.write("001_dump", "SELECT '\\gexec', 'a\n\\b';")
    assert project.yoyo("apply").returncode == 0


@postgresql_only
def test_rows_of_a_dump_are_not_waited_for(project: Project) -> None:
    project.write("001_dump", "CREATE TABLE hands (id INT);\nCOPY hands (id) FROM stdin;\n1\n\\.\n")

    assert "use INSERT" in project.refuses("apply")


def test_what_a_migration_selects_is_shown(project: Project) -> None:
    """As plain yoyo shows it; what a terminal would obey is shown as an escape, and most rows are counted."""
    numbers = " UNION ALL ".join(f"SELECT {number} AS id" for number in range(100))
    project.write(
        "001_add_hands",
        f"CREATE TABLE hands (id INTEGER, note TEXT);\nINSERT INTO hands SELECT id, NULL FROM "
        f"({numbers}) AS n;\n"
        "UPDATE hands SET note = 'a\x1b[2J\nb' WHERE id = 1;\n"
        "SELECT id, note FROM hands WHERE id < 2 ORDER BY id;\nSELECT id FROM hands ORDER BY id;\n"
        "SELECT note FROM hands WHERE id > 100;",
        "SELECT 'all gone' AS hands;\nDROP TABLE hands;",
    )
    ran = project.yoyo("apply")
    first, _, rest = ran.stdout.partition("(2 rows)\n")

    assert first.splitlines()[-4:] == [
        "id | note",
        "-- | -----------",
        "0  | NULL",
        "1  | a\\x1b[2J\\nb",
    ]
    assert rest.splitlines()[:4] == ["id", "--", "0", "1"]
    assert "19\n(100 rows, the first 20 are shown)\nnote\n----\n(0 rows)\napplied 001_add_hands\n" in rest
    assert (
        "hands\n--------\nall gone\n(1 row)\nrolled back 001_add_hands\n" in project.yoyo("rollback").stdout
    )


def test_a_percent_sign_is_none_of_plain_yoyos_parameters(project: Project) -> None:
    """It runs a statement as it is, so that `check` says nothing of it."""
    project.write(
        "001_add",
        "-- 100 %\nCREATE TABLE hands (id INTEGER);\nINSERT INTO hands SELECT 7 % 4;\nSELECT '%s %';",
    )

    assert project.plain_yoyo("apply").returncode == 0
    assert project.query("SELECT id FROM hands") == [(3,)]
