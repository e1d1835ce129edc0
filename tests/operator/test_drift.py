"""Drift: `poker-therapist status` shows what the live schema has and the applied migrations did not build."""

from itertools import chain
from pathlib import Path
from typing import NamedTuple

import pytest

from poker_therapist import get_pattern_storage
from poker_therapist.location import locate
from tests.helpers import old_app
from tests.helpers.cli import Result, command
from tests.helpers.engines import per_engine, run_sql, sqlite_only
from tests.helpers.migrating import IDS, up
from tests.helpers.postgresql import APP_TABLES, ROWS, migrate


class Change(NamedTuple):
    """A change by hand, and the difference that it should show."""

    sql: str
    about: str
    expected: str | None
    actual: str | None
    # What is replaced by something of another name is missing, and that exists, but should not.
    differences: int = 1


def rewritten(table: str, before: str, after: str) -> str:
    """Return the SQL that puts another text into the definition of a table."""
    before, after = before.replace("'", "''"), after.replace("'", "''")
    return (
        "PRAGMA writable_schema = ON;"
        f"UPDATE sqlite_schema SET sql = replace(sql, '{before}', '{after}') WHERE name = '{table}';"
        "PRAGMA writable_schema = RESET;"
    )


ON_SQLITE = {
    "index added": Change(
        "CREATE INDEX mine ON user_patterns (confidence)",
        "index mine", None, "on user_patterns (confidence)",
    ),
    "index dropped": Change(
        "DROP INDEX idx_user_insights_foremost",
        "index idx_user_insights_foremost", "on user_insights (user_id, importance)", None,
    ),
    "index of other columns": Change(
        "DROP INDEX idx_user_insights_foremost;"
        "CREATE UNIQUE INDEX idx_user_insights_foremost ON user_insights (user_id, id DESC) WHERE id > 7",
        "index idx_user_insights_foremost", "on user_insights (user_id, importance)",
        "unique on user_insights (user_id, id DESC) WHERE id > 7",
    ),
    "column dropped": Change(
        "ALTER TABLE legacy_rows DROP COLUMN score", "column legacy_rows.score", "ANY", None
    ),
    "column added": Change(
        "ALTER TABLE user_insights ADD COLUMN mood TEXT NOT NULL DEFAULT 'calm'",
        "column user_insights.mood", None, "TEXT NOT NULL DEFAULT 'calm'",
    ),
    "another type": Change(
        rewritten("user_patterns", "confidence REAL", "confidence ANY"),
        "column user_patterns.confidence", "REAL NOT NULL DEFAULT 1.0", "ANY NOT NULL DEFAULT 1.0",
    ),
    "another default": Change(
        rewritten("user_patterns", "DEFAULT 1.0", "DEFAULT 0.7"),
        "column user_patterns.confidence", "REAL NOT NULL DEFAULT 1.0", "REAL NOT NULL DEFAULT 0.7",
    ),
    "not strict": Change(
        rewritten("user_insights", "STRICT", ""),
        "table user_insights", "AUTOINCREMENT, STRICT", "AUTOINCREMENT",
    ),
    "another unique key": Change(
        rewritten("user_patterns", ", pattern_key)", ")"),
        "unique key of user_patterns on (user_id, pattern_type, pattern_key)", "present", None, 2,
    ),
    "another check": Change(
        rewritten("user_patterns", "BETWEEN 0.0 AND 1.0", "BETWEEN 0.0 AND 2.0"),
        "check of user_patterns: confidence BETWEEN 0.0 AND 2.0", None, "present", 2,
    ),
    "no check": Change(
        rewritten("user_patterns", "CHECK (pattern_key <> '')", ""),
        "check of user_patterns: pattern_key <> ''", "present", None,
    ),
    "trigger": Change(
        "CREATE TRIGGER mine AFTER DELETE ON user_patterns BEGIN DELETE FROM user_insights; END",
        "trigger mine", None,
        "CREATE TRIGGER mine AFTER DELETE ON user_patterns BEGIN DELETE FROM user_insights ; END",
    ),
    "view": Change(
        "CREATE VIEW sure AS SELECT pattern_key FROM user_patterns WHERE confidence > 0.9",
        "view sure", None,
        "CREATE VIEW sure AS SELECT pattern_key FROM user_patterns WHERE confidence > 0.9",
    ),
    "table dropped": Change(
        "DROP TABLE legacy_rows", "table legacy_rows", "STRICT, WITHOUT ROWID", None
    ),
}  # fmt: skip
RANGE = "CHECK (confidence >= 0::double precision AND confidence <= 1::double precision)"
FOREMOST = "on user_insights (user_id, importance, id)"
ON_POSTGRESQL = {
    "column added": Change(
        "ALTER TABLE user_insights ADD COLUMN mood TEXT NOT NULL DEFAULT 'calm'",
        "column user_insights.mood", None, "text NOT NULL DEFAULT 'calm'::text",
    ),
    "column dropped": Change(
        "ALTER TABLE legacy_rows DROP COLUMN score", "column legacy_rows.score", "json", None
    ),
    "another type": Change(
        "ALTER TABLE user_insights ALTER insight_data TYPE JSONB",
        "column user_insights.insight_data", "json NOT NULL", "jsonb NOT NULL",
    ),
    "another default": Change(
        "ALTER TABLE user_patterns ALTER confidence SET DEFAULT 0.7",
        "column user_patterns.confidence", "double precision NOT NULL DEFAULT 1.0",
        "double precision NOT NULL DEFAULT 0.7",
    ),
    "no default": Change(
        "ALTER TABLE user_patterns ALTER confidence DROP DEFAULT",
        "column user_patterns.confidence", "double precision NOT NULL DEFAULT 1.0",
        "double precision NOT NULL",
    ),
    "nullable": Change(
        "ALTER TABLE user_insights ALTER created_at DROP NOT NULL",
        "column user_insights.created_at", "timestamp with time zone NOT NULL DEFAULT now()",
        "timestamp with time zone DEFAULT now()",
    ),
    "another collation": Change(
        'ALTER TABLE user_insights ALTER insight_type TYPE TEXT COLLATE "POSIX"',
        "column user_insights.insight_type", 'text NOT NULL COLLATE "C"', 'text NOT NULL COLLATE "POSIX"',
    ),
    "ids by default": Change(
        "ALTER TABLE user_insights ALTER id SET GENERATED BY DEFAULT",
        "column user_insights.id", "bigint NOT NULL GENERATED ALWAYS AS IDENTITY",
        "bigint NOT NULL GENERATED BY DEFAULT AS IDENTITY",
    ),
    "index added": Change(
        "CREATE INDEX mine ON user_patterns (confidence)", "index mine", None, "on user_patterns (confidence)"
    ),
    "index dropped": Change(
        "DROP INDEX idx_user_insights_foremost", "index idx_user_insights_foremost", FOREMOST, None
    ),
    "index of other columns": Change(
        "DROP INDEX idx_user_insights_foremost;"
        "CREATE UNIQUE INDEX idx_user_insights_foremost ON user_insights (user_id, id DESC) WHERE id > 7",
        "index idx_user_insights_foremost", FOREMOST,
        "unique on user_insights (user_id, id DESC) WHERE id > 7",
    ),
    "invalid index": Change(
        "UPDATE pg_index SET indisvalid = FALSE WHERE indexrelid = 'idx_user_insights_foremost'::REGCLASS",
        "index idx_user_insights_foremost", FOREMOST, f"{FOREMOST} INVALID",
    ),
    "another check": Change(
        "ALTER TABLE user_patterns DROP CONSTRAINT user_patterns_confidence_range,"
        "ADD CONSTRAINT user_patterns_confidence_range CHECK (confidence >= 0)",
        "constraint user_patterns_confidence_range of user_patterns", RANGE,
        "CHECK (confidence >= 0::double precision)",
    ),
    "check of the future alone": Change(
        "ALTER TABLE user_patterns DROP CONSTRAINT user_patterns_confidence_range,"
        "ADD CONSTRAINT user_patterns_confidence_range CHECK (confidence BETWEEN 0 AND 1) NOT VALID",
        "constraint user_patterns_confidence_range of user_patterns", RANGE, f"{RANGE} NOT VALID",
    ),
    "no check": Change(
        "ALTER TABLE user_patterns DROP CONSTRAINT user_patterns_pattern_key_not_empty",
        "constraint user_patterns_pattern_key_not_empty of user_patterns",
        "CHECK (pattern_key <> ''::text)", None,
    ),
    "renamed constraint": Change(
        "ALTER TABLE user_patterns RENAME CONSTRAINT user_patterns_key TO mine",
        "constraint mine of user_patterns", None, "UNIQUE (user_id, pattern_type, pattern_key)", 2,
    ),
    "trigger": Change(
        "CREATE FUNCTION nothing() RETURNS TRIGGER LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';"
        "CREATE TRIGGER mine AFTER DELETE ON user_patterns FOR EACH ROW EXECUTE FUNCTION nothing()",
        "trigger user_patterns.mine", None,
        "CREATE TRIGGER mine AFTER DELETE ON user_patterns FOR EACH ROW EXECUTE FUNCTION nothing()",
    ),
    "view": Change(
        "CREATE VIEW sure AS SELECT 1 AS one FROM user_patterns",
        "view sure", None, "CREATE VIEW sure AS SELECT 1 AS one FROM user_patterns;",
    ),
    # With the sequence of its identity.
    "unlogged": Change(
        "ALTER TABLE user_patterns SET UNLOGGED", "table user_patterns", "plain", "UNLOGGED", 2,
    ),
    "table dropped": Change("DROP TABLE legacy_rows", "table legacy_rows", "plain", None),
}  # fmt: skip
CHANGES = {"sqlite": ON_SQLITE, "postgresql": ON_POSTGRESQL}
# All others are made in one database; these would be in their way.
APART: dict[str, list[tuple[str, ...]]] = {
    "sqlite": [("index of other columns", "another default", "table dropped")],
    "postgresql": [
        ("index of other columns", "no default", "check of the future alone", "table dropped"),
        ("invalid index", "renamed constraint", "unlogged"),
    ],
}
TOGETHER = {
    engine: [*apart, tuple(name for name in CHANGES[engine] if name not in chain(*apart))]
    for engine, apart in APART.items()
}


def status(database: str, *options: str) -> Result:
    return command("status", "--database", database, *options, folder=Path.cwd())


@pytest.fixture
def shared(engine: str, migrated: str) -> str:
    """An up-to-date database in which the app has tables of its own."""
    run_sql(migrated, old_app.APP_TABLES if engine == "sqlite" else APP_TABLES)
    return migrated


@per_engine(TOGETHER)
@pytest.mark.slow
def test_changes_by_hand_are_shown(engine: str, case: tuple[str, ...], shared: str) -> None:
    """With what should be there and what is, in words and for a program; nothing else; and it is trouble."""
    changes = [CHANGES[engine][name] for name in case]
    for change in changes:
        run_sql(shared, change.sql)
    text, machine = status(shared), status(shared, "--json")
    drift = machine.json["drift"]
    differences = sum(change.differences for change in changes)

    assert (text.code, machine.code) == (4, 4)
    for _, about, expected, actual, _ in changes:
        assert {"about": about, "expected": expected, "actual": actual} in drift
    assert len(drift) == differences, drift
    assert [line.startswith("drift: ") for line in text.lines].count(True) == differences
    assert any(line.startswith(f"drift: {about} ") for line in text.lines)
    assert text.lines[-1].endswith(": needs attention, see above.")


WORDS = {
    "sqlite": [
        "drift: column user_insights.mood exists, but should not (TEXT)",
        f"drift: index idx_user_insights_foremost is missing ({ON_SQLITE['index dropped'].expected})",
    ],
    "postgresql": [
        "drift: column user_insights.mood exists, but should not (text)",
        f"drift: index idx_user_insights_foremost is missing ({FOREMOST})",
    ],
}


def test_drift_is_said_in_words(engine: str, shared: str) -> None:
    run_sql(shared, "DROP INDEX idx_user_insights_foremost; ALTER TABLE user_insights ADD COLUMN mood TEXT")

    assert status(shared).lines[len(IDS) :] == [
        *WORDS[engine],
        f"{locate(shared).name}: needs attention, see above.",
    ]


@sqlite_only
def test_a_table_that_is_gone_is_named_without_its_columns(shared: str) -> None:
    """And its indexes are, since somebody has to make them again."""
    run_sql(shared, "DROP TABLE user_insights")
    found = status(shared, "--json").json["drift"]

    assert [one["about"] for one in found] == [
        *(f"index idx_user_insights_{key}" for key in ("foremost", "newest", "newest_of_type")),
        "table user_insights",
    ]


OWN_TABLES = """
    CREATE INDEX emails ON users (email);
    CREATE VIEW names AS SELECT email FROM users;
    ALTER TABLE users ADD COLUMN name TEXT;
    DROP TABLE messages;
    CREATE TABLE hands (id INTEGER PRIMARY KEY, user_id INTEGER REFERENCES users (id), note TEXT);
"""
OWN_TRIGGER = """
    CREATE TRIGGER noted AFTER INSERT ON users BEGIN UPDATE users SET email = NULL; END;
"""


def test_what_the_app_does_with_its_own_tables_is_no_drift(engine: str, shared: str) -> None:
    run_sql(shared, OWN_TABLES + (OWN_TRIGGER if engine == "sqlite" else ""))

    assert (status(shared).code, status(shared, "--json").json["drift"]) == (0, [])


@pytest.mark.parametrize("last", IDS)
def test_what_is_pending_is_no_drift(engine: str, last: str, database: str) -> None:
    """The schema is compared with what has been applied, at each version, with rows in it."""
    if engine == "sqlite":
        old_app.make(Path(database))
        up(Path(database), last)
    else:
        assert migrate(["apply", "--revision", last], database).code == 0
        run_sql(database, APP_TABLES + ROWS)
    ran = status(database, "--json")

    assert ran.json["drift"] == []
    assert ran.code == (0 if last == IDS[-1] else 3)


def test_what_the_earlier_app_made_is_compared_when_001_has_adopted_it(tmp_path: Path) -> None:
    """An index by hand in an old database shows as soon as the tables are ours."""
    path = tmp_path / "RexVoice.db"
    old_app.make(path)
    run_sql(path, "CREATE INDEX mine ON user_patterns (confidence)")

    assert command("status", folder=tmp_path).code == 3

    up(path, IDS[0])

    assert command("status", "--json", folder=tmp_path).json["drift"] == [
        {"about": "index mine", "expected": None, "actual": "on user_patterns (confidence)"}
    ]


def test_what_the_earlier_app_makes_again_is_named_with_what_mends_it(database: str, engine: str) -> None:
    """Opened once on a migrated database it adds its indexes, as it did on every start."""
    get_pattern_storage(database).close()
    run_sql(
        database,
        """
        CREATE INDEX IF NOT EXISTS idx_user_patterns_user_type ON user_patterns (user_id, pattern_type);
        CREATE INDEX IF NOT EXISTS idx_conversation_context_user
        ON conversation_context (user_id, session_id);
        CREATE INDEX IF NOT EXISTS idx_user_insights_user ON user_insights (user_id, insight_type);
        CREATE INDEX somebody_s ON user_insights (importance);
        """,
    )
    text, machine = (status(database, *options) for options in ((), ("--json",)))

    assert (text.code, machine.code) == (4, 4)
    mending = machine.json["mending"]
    assert all(f"    {statement}" in text.lines for statement in mending)
    assert "such as the earlier app, has used this database" in text.out
    run_sql(database, "DROP INDEX somebody_s;" + "".join(mending))
    assert status(database).code == 0


@sqlite_only
def test_what_the_app_makes_of_the_file_is_no_drift_and_no_traceback(database: str) -> None:
    """A view of ten thousand words, statistics, a version of its own, an index for full text."""
    get_pattern_storage(database).close()
    columns = ", ".join(f"{number} AS c{number}" for number in range(1_900))
    run_sql(
        database,
        f"CREATE VIEW wide AS SELECT {columns};"
        f"CREATE VIEW deep AS SELECT {' + '.join(['(1)'] * 900)} AS one;"
        "ANALYZE; PRAGMA user_version = 7; PRAGMA application_id = 7;"
        "CREATE VIRTUAL TABLE words USING fts5 (text);",
    )

    assert status(database).code == 0
