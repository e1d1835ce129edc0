"""PostgreSQL behind a PgBouncer in transaction mode, which gives each transaction whichever session is free.

What the storage does in general runs through one in the modules that say `engine = engine_or_pooler`.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path

import psycopg
import pytest

from poker_therapist import (
    InvalidInput,
    SchemaOutdated,
    StorageError,
    TransactionConflict,
    get_pattern_storage,
)
from poker_therapist.postgresql import connect
from poker_therapist.postgresql.connect import open_connection
from poker_therapist.postgresql.home import MIGRATION_DATABASE
from tests.helpers.cli import command
from tests.helpers.engines import fetch_all
from tests.helpers.pooler import PROGRAM, keep_pooler
from tests.helpers.postgresql import locks, server_location

USER = 7
ASKED = "enable_seqscan", "enable_sort", "plan_cache_mode", "search_path", "lock_timeout", "TimeZone"


@pytest.fixture
def pooled(pooler: Callable[[str], str], migrated_postgresql_url: str) -> str:
    """A URL of an up-to-date database, through the pooler."""
    return pooler(migrated_postgresql_url)


def plain(pooled: str) -> str:
    """Return the URL without its option, as other programs know it."""
    return pooled.removesuffix("&pooler=transaction")


def test_there_is_a_pooler_to_test_with(report: Callable[[str], None]) -> None:
    if PROGRAM is None:
        reason = "PgBouncer: NOT TESTED. Install it, with apt-get install pgbouncer"
        report(reason)
        pytest.skip(reason)
    assert Path(PROGRAM).exists()


@pytest.mark.parametrize("migrate", [True, False])
def test_a_pooler_that_the_url_does_not_mention_is_named_with_the_option(pooled: str, migrate: bool) -> None:
    """By every way in; before anything is set that another program would find."""
    with pytest.raises(StorageError, match="add pooler=transaction to the URL, and run migrations without"):
        get_pattern_storage(plain(pooled), migrate=migrate)
    with pytest.raises(StorageError, match="add pooler=transaction to the URL"):
        open_connection(server_location(plain(pooled)))
    assert settings(plain(pooled)) == usual(plain(pooled))


def settings(url: str) -> list[str]:
    """Return what sessions of a pooler have that are not new."""
    found = []
    with psycopg.connect(url, autocommit=True) as connection:
        for name in ASKED:
            found += [str(value) for (value,) in connection.execute(f"SHOW {name}".encode())]
    return found


def usual(url: str) -> list[str]:
    """Return what sessions have at first: those of the server that have reset all."""
    with psycopg.connect(url, autocommit=True) as connection:
        rows = connection.execute(
            "SELECT reset_val FROM pg_settings, unnest(%s::text[]) WITH ORDINALITY AS asked (word, place) "
            "WHERE name = word ORDER BY place",
            (list(ASKED),),
        )
        return [str(value) for (value,) in rows]


def test_nothing_is_left_in_a_session_that_others_get(pooled: str, migrated_postgresql_url: str) -> None:
    with get_pattern_storage(pooled) as storage:
        for number in range(20):  # more than after which psycopg prepares a statement
            storage.save_pattern(USER, "tilt", "bad_beat", number)
            with storage.transaction():
                storage.save_context(USER, "mood", storage.get_pattern(USER, "tilt", "bad_beat"))
        storage.forget_user(USER)
        with psycopg.connect(plain(pooled), autocommit=True) as other:
            assert other.execute("SELECT count(*) FROM pg_prepared_statements").fetchone() == (0,)
        assert locks(migrated_postgresql_url) == []
        assert settings(plain(pooled)) == usual(plain(pooled))


def test_blocks_about_one_player_lose_nothing(pooled: str) -> None:
    """Two may meet between the lock and the snapshot: the later is told so, and does it again."""
    with get_pattern_storage(pooled) as storage, ThreadPoolExecutor(8) as threads:
        storage.save_pattern(USER, "tilt", "count", 0)

        def add_one(_: int) -> None:
            added = False
            while not added:
                with suppress(TransactionConflict):
                    with storage.transaction():
                        count = storage.get_pattern(USER, "tilt", "count")
                        storage.save_pattern(USER, "tilt", "count", count + 1)
                    added = True

        list(threads.map(add_one, range(80)))
        assert storage.get_pattern(USER, "tilt", "count") == 80


def test_a_slow_statement_is_waited_for(pooled: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pooler's clients know no number of a process of the server's: it is asked for."""
    monkeypatch.setattr(connect, "SILENCE", 0.1)
    with get_pattern_storage(pooled) as storage:
        assert fetch_all(storage, "SELECT 1 FROM pg_sleep(0.5)") == [(1,)]


def test_an_outdated_database_is_migrated_past_the_pooler(
    pooler: Callable[[str], str],
    postgresql_url: str,
    migrated_postgresql_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By whatever migrates it; where nobody has said how to get past, it is refused."""
    pooled = pooler(postgresql_url)
    says = f"behind a pooler in transaction mode.* with --database, or in {MIGRATION_DATABASE}"
    with pytest.raises(InvalidInput, match=says):
        get_pattern_storage(pooled)
    for deed in ("apply", "status", "backup"):
        ran = command(deed, "--database", pooled, folder=tmp_path)
        assert MIGRATION_DATABASE in ran.error

    monkeypatch.setenv(MIGRATION_DATABASE, migrated_postgresql_url)  # another one
    with pytest.raises(SchemaOutdated, match="which were applied to another database: correct the addr"):
        get_pattern_storage(pooled)
    monkeypatch.setenv(MIGRATION_DATABASE, postgresql_url)
    with get_pattern_storage(pooled) as storage:
        storage.save_pattern(USER, "tilt", "bad_beat", 1)
    ran = command("status", "--database", pooled, folder=tmp_path)
    assert (ran.code, ran.error) == (0, "")
    assert command("export", str(USER), "--database", pooled, folder=tmp_path).code == 0


def test_a_pooler_that_gives_each_connection_a_session_needs_no_option(migrated_postgresql_url: str) -> None:
    """Also where it has one session for all."""
    if PROGRAM is None:
        pytest.skip("PgBouncer is not installed")
    with keep_pooler(migrated_postgresql_url, "session", default_pool_size=1) as through:
        url = through(migrated_postgresql_url)
        with get_pattern_storage(url + "&connections=1") as storage:
            storage.save_pattern(USER, "tilt", "bad_beat", 1)
            assert storage.get_pattern(USER, "tilt", "bad_beat") == 1
        with closing(open_connection(server_location(url + "&pooler=session"))) as connection:
            assert connection.execute("SHOW search_path").fetchone() == ("public, pg_temp",)


def test_the_commands_about_players_go_through_the_pooler(pooled: str, tmp_path: Path) -> None:
    with get_pattern_storage(pooled) as storage:
        storage.save_context(USER, "mood", "calm", expires_minutes=-1)
    codes = [
        command(*deed.split(), "--database", pooled, folder=tmp_path).code
        for deed in ("export 7", "purge", "forget 7 --yes")
    ]
    assert codes == [0, 0, 0]
