"""Citus, by a stand-in: a server with its catalog, which fails what Citus fails.

Measured on a real cluster (docs/SCALING.md says how); there is none here. `pg_dist_partition` says that our
tables are distributed, and a trigger fails a session that forces generic plans, as Citus does.
"""

import re
from pathlib import Path

import pytest

from poker_therapist import PatternStorage, StorageError, get_pattern_storage
from poker_therapist.postgresql.backend import AtomicPostgreSQLBackend
from poker_therapist.schema import bring_up_to_date, migrations_folder
from tests.helpers.citus import LIKE_CITUS
from tests.helpers.cli import command
from tests.helpers.engines import fetch_all, run_sql
from tests.helpers.postgresql import server_location
from tests.helpers.queries import ON_POSTGRESQL

USER = 7
DISTRIBUTED = """
    CREATE TABLE pg_dist_partition (logicalrelid REGCLASS);
    INSERT INTO pg_dist_partition VALUES ('user_patterns'), ('conversation_context');
    CREATE FUNCTION plans_once() RETURNS TRIGGER LANGUAGE plpgsql AS $$ BEGIN
        IF current_setting('plan_cache_mode') = 'force_generic_plan' THEN
            RAISE 'could not create distributed plan' USING DETAIL = 'parameters in SQL functions';
        END IF;
        RETURN NULL;
    END $$;
    CREATE TRIGGER plans BEFORE INSERT OR DELETE ON conversation_context EXECUTE FUNCTION plans_once();
"""
WORKER = """
    CREATE FUNCTION citus_is_coordinator() RETURNS BOOLEAN LANGUAGE sql AS 'SELECT false';
    CREATE TABLE pg_dist_node (nodename TEXT, nodeport INT, groupid INT);
    INSERT INTO pg_dist_node VALUES ('w1', 5432, 1), ('coordinator.example.org', 5433, 0);
"""


def test_no_generic_plan_is_forced_where_tables_are_distributed(migrated_postgresql_url: str) -> None:
    run_sql(migrated_postgresql_url, DISTRIBUTED)
    with get_pattern_storage(migrated_postgresql_url) as storage:
        storage.save_context(USER, "mood", "calm", expires_minutes=-1)
        assert storage.purge_expired() == 1
        with storage.transaction():
            storage.save_context(USER, "mood", "calm")
            assert storage.get_context(USER, "mood") == ["calm"]
        assert fetch_all(storage, "SHOW plan_cache_mode") == [("auto",)]


def test_a_generic_plan_is_forced_where_none_are(storage_on_server: PatternStorage) -> None:
    assert fetch_all(storage_on_server, "SHOW plan_cache_mode") == [("force_generic_plan",)]


@pytest.fixture
def storage_on_server(migrated_postgresql_url: str) -> PatternStorage:
    """A storage where Citus is and has distributed nothing of ours."""
    run_sql(migrated_postgresql_url, "CREATE TABLE pg_dist_partition (logicalrelid REGCLASS)")
    return get_pattern_storage(migrated_postgresql_url)


@pytest.mark.parametrize("name", ON_POSTGRESQL)
def test_no_query_hides_the_column_by_which_citus_finds_the_node(name: str) -> None:
    assert re.findall(r"[+]\s*\w*user_id", ON_POSTGRESQL[name]) == []


def test_a_worker_is_refused_with_the_address_of_the_coordinator(postgresql_url: str, tmp_path: Path) -> None:
    """Its ids would be out of order; it seems to have no migrations, and would be migrated."""
    run_sql(postgresql_url, WORKER)
    says = "is a worker of a Citus cluster.*connect to the coordinator, coordinator.example.org:5433"
    with pytest.raises(StorageError, match=says):
        get_pattern_storage(postgresql_url)
    with pytest.raises(StorageError, match=says):
        bring_up_to_date(server_location(postgresql_url))
    for deed in ("apply", "status", "backup", "rehearse"):
        ran = command(deed, "--database", postgresql_url, folder=tmp_path)
        assert ran.code == 1
        assert re.search(says, ran.error)

    run_sql(
        postgresql_url,
        "CREATE OR REPLACE FUNCTION citus_is_coordinator() RETURNS BOOLEAN LANGUAGE sql AS 'SELECT true'",
    )
    get_pattern_storage(postgresql_url).close()


def test_the_status_of_a_distributed_database_is_that_of_the_coordinator_s_schema(
    migrated_postgresql_url: str, tmp_path: Path
) -> None:
    """Which a scratch schema beside it has, too, without being distributed."""
    run_sql(migrated_postgresql_url, f"{DISTRIBUTED}{LIKE_CITUS}")
    with AtomicPostgreSQLBackend(server_location(migrated_postgresql_url)) as backend:
        folders = [str(migrations_folder(name)) for name in ("postgresql", "citus")]
        backend.apply_migrations(backend.to_apply(backend.read(folders)))
    run_sql(migrated_postgresql_url, "CREATE INDEX mine ON user_insights (importance)")
    ran = command("status", "--database", migrated_postgresql_url, folder=tmp_path)

    assert "c001_distribute_tables\tapplied" in ran.out
    assert "index mine" in ran.out
    assert ran.code == 4


def test_a_distributed_database_is_not_rehearsed_on(migrated_postgresql_url: str, tmp_path: Path) -> None:
    """The server's copy of it would have the metadata of the nodes, and none of the rows."""
    run_sql(migrated_postgresql_url, DISTRIBUTED)
    ran = command("rehearse", "--database", migrated_postgresql_url, folder=tmp_path)

    assert ran.code == 1
    assert "is distributed by Citus, so it cannot be copied" in ran.error


@pytest.mark.slow
@pytest.mark.usefixtures("programs")
def test_a_backup_of_a_distributed_database_says_what_it_is(
    migrated_postgresql_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run_sql(migrated_postgresql_url, DISTRIBUTED)
    ran = command("backup", "--database", migrated_postgresql_url, "--output", "one.backup", folder=tmp_path)

    assert (ran.code, ran.lines) == (0, ["one.backup"])
    assert "stop the app for a consistent backup" in caplog.text
