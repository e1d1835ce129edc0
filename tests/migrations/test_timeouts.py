"""PostgreSQL: how long a migration may wait and run, whatever the URL and the server's settings say."""

from pathlib import Path
from typing import Any, NamedTuple

import pytest

from poker_therapist.migrations.files import SQLMigration, Statement
from poker_therapist.postgresql.backend import AtomicPostgreSQLBackend
from poker_therapist.schema import migrations_folder
from tests.helpers.engines import query, with_options
from tests.helpers.pairs import Pairs
from tests.helpers.postgresql import server_location
from tests.helpers.sessions import settings

# In milliseconds. Everybody who comes after a migration that waits for a table waits, too; to wait for no
# time at all would be to fail over every short transaction.
SHORT = range(1_000, 10_001)


@pytest.mark.parametrize("options", ["timeout=30", "timeout=600", settings(lock_timeout="0")])
def test_a_migration_waits_for_a_table_for_some_seconds(
    options: str, postgresql_url: str, tmp_path: Path
) -> None:
    pairs = Pairs(tmp_path / "sql", with_options(postgresql_url, options))
    pairs.write(
        "001_look",
        "CREATE TABLE seen AS SELECT setting::INT AS ms FROM pg_settings WHERE name = 'lock_timeout';",
    )
    pairs.apply()
    ((wait,),) = query(postgresql_url, "SELECT ms FROM seen")

    assert wait in SHORT


class Seen(NamedTuple):
    """A statement of a migration, and the limits in milliseconds under which it ran; 0 is none."""

    text: str
    statement_timeout: int
    lock_timeout: int


class Noting(AtomicPostgreSQLBackend):
    """A backend that notes the limits under which each statement runs."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.seen: list[Seen] = []

    def run(self, migration: SQLMigration, statement: Statement, direction: str) -> None:
        limits = self.connection.execute(
            "SELECT setting FROM pg_settings WHERE name IN ('statement_timeout', 'lock_timeout') "
            "ORDER BY name DESC"
        )
        self.seen.append(Seen(statement.text, *(int(limit) for (limit,) in limits.fetchall())))
        super().run(migration, statement, direction)


def require_limits(seen: list[Seen]) -> None:
    """Require what lasts to have no limit, and what locks the players out to give up soon."""
    for text, statement_timeout, lock_timeout in seen:
        if "CONCURRENTLY" in text:  # it waits for every transaction, and nobody for it
            assert (statement_timeout, lock_timeout) == (0, 0), text
        if "VALIDATE" in text:  # it reads the whole table
            assert statement_timeout == 0, text
        if text.startswith(("ALTER TABLE", "DROP TABLE")):
            assert lock_timeout in SHORT, text


def test_our_migrations_run_under_limits_that_fit_what_they_do(postgresql_url: str) -> None:
    """On a server that ends each long query, in both directions."""
    hasty = server_location(with_options(postgresql_url, settings(statement_timeout="20s")))
    with Noting(hasty) as backend:
        migrations = backend.read([str(migrations_folder("postgresql"))])
        backend.apply_migrations(migrations)
        backend.rollback_migrations(backend.to_rollback(migrations))
    texts = [one.text for one in backend.seen]

    assert sum("CREATE INDEX CONCURRENTLY" in text for text in texts) > 10
    assert sum("VALIDATE" in text for text in texts) >= 3
    assert sum(text.startswith("DROP TABLE") for text in texts) >= 4
    require_limits(backend.seen)
