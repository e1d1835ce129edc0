"""Drift: `poker-therapist status` shows what the live schema has and the applied migrations did not build."""

from pathlib import Path
from typing import NamedTuple

import pytest

from poker_therapist import get_pattern_storage
from tests.helpers import old_app, snapshots
from tests.helpers.cli import command
from tests.helpers.migrating import IDS, up


class Change(NamedTuple):
    """A change by hand, and the difference that it should show."""

    sql: str
    about: str
    expected: str | None
    actual: str | None
    # What is replaced by something of another name is missing, and that is there and should not be.
    differences: int = 1


def rewritten(table: str, before: str, after: str) -> str:
    """Return the SQL that puts another text into the definition of a table."""
    before, after = before.replace("'", "''"), after.replace("'", "''")
    return (
        "PRAGMA writable_schema = ON;"
        f"UPDATE sqlite_schema SET sql = replace(sql, '{before}', '{after}') WHERE name = '{table}';"
        "PRAGMA writable_schema = RESET;"
    )


CHANGES = {
    "index added": Change(
        "CREATE INDEX mine ON user_patterns (confidence)",
        "index mine", None, "on user_patterns (confidence)",
    ),
    "index dropped": Change(
        "DROP INDEX idx_user_insights_type",
        "index idx_user_insights_type", "on user_insights (user_id, insight_type, created_at)", None,
    ),
    "index of other columns": Change(
        "DROP INDEX idx_user_insights_type;"
        "CREATE UNIQUE INDEX idx_user_insights_type ON user_insights (user_id, id DESC) WHERE id > 7",
        "index idx_user_insights_type", "on user_insights (user_id, insight_type, created_at)",
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


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """An up-to-date database beside which the app has tables of its own."""
    path = tmp_path / "RexVoice.db"
    with snapshots.connect(path) as connection:
        connection.executescript(old_app.APP_TABLES)
    get_pattern_storage(path).close()
    return path


def change(path: Path, sql: str) -> None:
    with snapshots.connect(path) as connection:
        connection.executescript(sql)


@pytest.mark.parametrize("kind", CHANGES)
def test_a_change_by_hand_is_shown(kind: str, database: Path) -> None:
    """With what should be there and what is, in words and for a program; nothing else; and it is trouble."""
    sql, about, expected, actual, differences = CHANGES[kind]
    change(database, sql)
    text, machine = (command("status", *options, folder=database.parent) for options in ((), ("--json",)))
    drift = machine.json["drift"]

    assert (text.code, machine.code) == (4, 4)
    assert {"about": about, "expected": expected, "actual": actual} in drift
    assert len(drift) == differences
    assert [line.startswith("drift: ") for line in text.lines].count(True) == differences
    assert any(line.startswith(f"drift: {about} ") for line in text.lines)
    assert text.lines[-1] == f"{database}: trouble, see above."


def test_a_table_that_is_gone_is_named_without_its_columns(database: Path) -> None:
    """And its indexes are, since somebody has to make them again."""
    change(database, "DROP TABLE user_insights")
    found = command("status", "--json", folder=database.parent).json["drift"]

    assert [one["about"] for one in found] == [
        *(f"index idx_user_insights_{key}" for key in ("created", "importance", "type")),
        "table user_insights",
    ]


APP = """
    CREATE INDEX emails ON users (email);
    CREATE VIEW names AS SELECT email FROM users;
    CREATE TRIGGER noted AFTER INSERT ON messages BEGIN UPDATE users SET email = NULL; END;
    ALTER TABLE users ADD COLUMN name TEXT;
    DROP TABLE messages;
    CREATE TABLE hands (id INTEGER PRIMARY KEY, user_id INTEGER REFERENCES users (id), note TEXT);
"""


def test_what_the_app_does_with_its_own_tables_is_no_drift(database: Path) -> None:
    change(database, APP)
    ran = command("status", "--json", folder=database.parent)

    assert ran.code == 0
    assert ran.json["drift"] == []


@pytest.mark.parametrize("last", IDS)
def test_what_is_pending_is_no_drift(last: str, tmp_path: Path) -> None:
    """The schema is compared with what has been applied, at each version."""
    old_app.make(tmp_path / "RexVoice.db")
    up(tmp_path / "RexVoice.db", last)
    ran = command("status", "--json", folder=tmp_path)

    assert ran.json["drift"] == []
    assert ran.code == (0 if last == IDS[-1] else 3)


def test_what_the_earlier_app_made_is_compared_when_001_has_adopted_it(tmp_path: Path) -> None:
    """An index by hand in an old database shows as soon as the tables are ours."""
    path = tmp_path / "RexVoice.db"
    old_app.make(path)
    change(path, "CREATE INDEX mine ON user_patterns (confidence)")

    assert command("status", folder=tmp_path).code == 3

    up(path, IDS[0])

    assert command("status", "--json", folder=tmp_path).json["drift"] == [
        {"about": "index mine", "expected": None, "actual": "on user_patterns (confidence)"}
    ]
