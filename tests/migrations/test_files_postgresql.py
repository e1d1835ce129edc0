"""PostgreSQL's SQL files by themselves: applied, rolled back, interrupted at any statement, and on Citus."""

from pathlib import Path

import psycopg
import pytest

from poker_therapist.migrations.catalog import Catalog
from poker_therapist.migrations.files import SQLMigration
from poker_therapist.postgresql.catalog import describe
from tests.helpers.postgresql import CITUS, FOLDER, IN_PARTS, MIGRATIONS, ROWS

# What 001 makes; a later migration may add to it.
COLUMNS = {
    "user_patterns": (
        "id, user_id, pattern_type, pattern_key, pattern_value, confidence, created_at, updated_at"
    ),
    "conversation_context": "id, user_id, context_key, context_value, session_id, created_at, expires_at",
    "user_insights": "id, user_id, insight_type, insight_data, importance, created_at",
}

# What Citus would do, as far as the coordinator's own tables show it.
LIKE_CITUS = """
    CREATE FUNCTION create_distributed_table(t REGCLASS, by TEXT, colocate_with TEXT) RETURNS VOID AS ''
    LANGUAGE sql;
    CREATE FUNCTION truncate_local_data_after_distributing_table(t REGCLASS) RETURNS VOID AS ''
    LANGUAGE sql;
    CREATE FUNCTION undistribute_table(t REGCLASS) RETURNS VOID AS '' LANGUAGE sql;
"""


def run(connection: psycopg.Connection, migration: SQLMigration, direction: str = "apply") -> None:
    """Run one direction of a migration, as a whole if it is one."""
    statements = migration.statements(direction)
    if not migration.use_transactions:
        run_some(connection, migration, direction, len(statements))
        return
    with connection.transaction():
        for statement in statements:
            connection.execute(statement.text.encode())


def run_some(connection: psycopg.Connection, migration: SQLMigration, direction: str, count: int) -> None:
    """Run the first statements of one direction, each by itself."""
    for statement in migration.statements(direction)[:count]:
        connection.execute(statement.text.encode())
    connection.execute("RESET lock_timeout; RESET statement_timeout")


def rows(connection: psycopg.Connection) -> list[list[tuple[str]]]:
    """Return all that players have said, as text."""
    return [
        connection.execute(f"SELECT ROW({columns})::TEXT FROM {table} ORDER BY id").fetchall()
        for table, columns in COLUMNS.items()
    ]


@pytest.mark.parametrize("populated", [False, True])
def test_there_and_back_and_there(populated: bool, postgresql_url: str) -> None:
    """Each rollback gives back the schema before it, exactly; values stay to the letter."""
    with psycopg.connect(postgresql_url, autocommit=True) as connection:
        schemas: list[Catalog] = [describe(connection, "public")]
        for migration in MIGRATIONS:
            run(connection, migration)
            schemas.append(describe(connection, "public"))
            if populated and len(schemas) == 2:
                connection.execute(ROWS)
        before = rows(connection)
        for migration in reversed(MIGRATIONS[1:]):
            assert describe(connection, "public") == schemas.pop()
            run(connection, migration, "rollback")
            assert describe(connection, "public") == schemas[-1]
            assert rows(connection) == before
        for migration in MIGRATIONS[1:]:
            run(connection, migration)
        assert rows(connection) == before
        for migration in reversed(MIGRATIONS):
            run(connection, migration, "rollback")
        assert describe(connection, "public") == Catalog()


@pytest.mark.parametrize("migration", IN_PARTS, ids=lambda migration: migration.id)
@pytest.mark.slow
def test_what_was_interrupted_is_run_again_or_taken_back(
    migration: SQLMigration, postgresql_url: str
) -> None:
    """After any statement, of either direction."""
    there, back = (len(migration.statements(direction)) for direction in ("apply", "rollback"))
    with psycopg.connect(postgresql_url, autocommit=True) as connection:
        for earlier in MIGRATIONS[: MIGRATIONS.index(migration)]:
            run(connection, earlier)
        connection.execute(ROWS)
        before = describe(connection, "public")
        run(connection, migration)
        after = describe(connection, "public")
        for count in range(back + 1):
            run_some(connection, migration, "rollback", count)
            run(connection, migration, "rollback")
            assert describe(connection, "public") == before
            run(connection, migration)
        for count in range(there + 1):
            run(connection, migration, "rollback")
            run_some(connection, migration, "apply", count)
            run(connection, migration, "rollback")
            assert describe(connection, "public") == before
            run_some(connection, migration, "apply", count)
            run(connection, migration)
            assert describe(connection, "public") == after


def test_a_broken_rule_is_named_and_what_breaks_it_stays(postgresql_url: str) -> None:
    """The same statements go on once the row is repaired."""
    with psycopg.connect(postgresql_url, autocommit=True) as connection:
        for migration in MIGRATIONS[:2]:
            run(connection, migration)
        connection.execute(ROWS + "UPDATE user_patterns SET confidence = 1.7 WHERE user_id = 3")
        before = rows(connection)

        with pytest.raises(psycopg.errors.CheckViolation, match="user_patterns_confidence_range"):
            run(connection, MIGRATIONS[2])

        assert rows(connection) == before
        connection.execute("UPDATE user_patterns SET confidence = 1 WHERE user_id = 3")
        run(connection, MIGRATIONS[2])


def test_no_table_is_read_while_it_is_locked(postgresql_url: str) -> None:
    """003 reads each table once, to validate; for NOT NULL, what was validated is proof enough."""
    said: list[str | None] = []
    with psycopg.connect(postgresql_url, autocommit=True) as connection:
        for migration in MIGRATIONS[:2]:
            run(connection, migration)
        connection.add_notice_handler(lambda notice: said.append(notice.message_primary))
        connection.execute("SET client_min_messages = debug1")
        run(connection, MIGRATIONS[2])

    assert sum('verifying table "' in (line or "") for line in said) == len(COLUMNS)
    assert sum("sufficient to prove that it does not contain nulls" in (line or "") for line in said) == 6


def test_what_citus_gives_back_is_what_it_got(postgresql_url: str) -> None:
    """The tables that the rollback rebuilds have the same schema and rows, and count on where they stood.

    Its schema is that of 004, on which it depends: what came after it is taken back before, or made again.
    """
    with psycopg.connect(postgresql_url, autocommit=True) as connection:
        connection.execute(LIKE_CITUS)
        for migration in MIGRATIONS[:4]:
            run(connection, migration)
        connection.execute(ROWS)
        connection.execute("DELETE FROM user_patterns WHERE id = 9")  # whose id is not given again
        connection.execute("INSERT INTO user_insights OVERRIDING SYSTEM VALUE VALUES (99, 9, 'leak', '1')")
        schema, before = describe(connection, "public"), rows(connection)

        run(connection, CITUS)
        run(connection, CITUS, "rollback")

        assert describe(connection, "public") == schema
        assert rows(connection) == before

        for migration in MIGRATIONS[4:]:
            run(connection, migration)
        schema = describe(connection, "public")
        run(connection, CITUS)
        run(connection, CITUS, "rollback")
        run(connection, MIGRATIONS[4], "rollback")
        run(connection, MIGRATIONS[4])

        assert describe(connection, "public") == schema
        assert rows(connection) == before
        connection.execute(ROWS.replace("'bad beat'", "'cooler'"))
        firsts = [connection.execute(f"SELECT max(id) - 8 FROM {table}").fetchone() for table in COLUMNS]
        assert firsts == [(10,), (10,), (100,)]


@pytest.mark.parametrize("path", sorted(FOLDER.parent.glob("[pc]*/*.sql")), ids=lambda path: path.name)
def test_plain_yoyo_can_run_the_files(path: Path) -> None:
    """Nothing that one of its ways to split and run SQL takes for something else."""
    assert not {"%", "\\", "$"} & set(path.read_text(encoding="utf-8"))
