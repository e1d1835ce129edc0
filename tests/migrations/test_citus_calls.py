"""What the Citus pair asks of Citus: every table of the players once, by player, beside the first."""

import psycopg

from poker_therapist.migrations.files import SQLMigration, read_migrations
from poker_therapist.schema import migrations_folder
from tests.helpers.citus import LIKE_CITUS

FOLDERS = [str(migrations_folder(name)) for name in ("postgresql", "citus")]


def run(connection: psycopg.Connection, migration: SQLMigration, direction: str = "apply") -> None:
    for statement in migration.statements(direction):
        connection.execute(statement.text.encode())


def test_every_table_of_players_is_distributed_and_leaves_no_rows_behind(postgresql_url: str) -> None:
    *others, citus = read_migrations(FOLDERS)
    with psycopg.connect(postgresql_url, autocommit=True) as connection:
        for migration in others:
            run(connection, migration)
        of_players = {
            table
            for (table,) in connection.execute(
                "SELECT table_name FROM information_schema.columns "
                "WHERE table_schema = 'public' AND column_name = 'user_id'"
            )
        }
        connection.execute(LIKE_CITUS)
        with connection.transaction():
            run(connection, citus)
        called = connection.execute("SELECT what, of_table, colocated FROM called ORDER BY number").fetchall()
    distributed = [(table, beside) for what, table, beside in called if what == "distribute"]
    truncated = [table for what, table, _ in called if what == "truncate"]
    (first, beside_first), *rest = distributed

    assert beside_first == "none"
    assert {beside for _, beside in rest} == {first}
    assert sorted([first, *(table for table, _ in rest)]) == sorted(of_players)
    assert sorted(truncated) == sorted(of_players)
    assert called.index(("truncate", truncated[0], None)) >= len(distributed)
