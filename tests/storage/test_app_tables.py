"""The app's own tables in the same SQLite file: whatever they are, they stand in nobody's way."""

from pathlib import Path
from typing import Any

import pytest

from poker_therapist import PatternStorage, get_pattern_storage, schema
from poker_therapist.engines import engine_for
from poker_therapist.location import locate
from tests.helpers import old_app, snapshots
from tests.helpers.app_tables import REFERENCES, add_app_tables, app_rows, register
from tests.helpers.cli import command
from tests.helpers.engines import run_sql
from tests.helpers.migrating import FOLDER, IDS, down, up
from tests.helpers.postgresql import yoyo_in_child
from tests.helpers.project import Project

USER = 7


@pytest.mark.parametrize("is_old", [False, True], ids=["new", "adopted"])
@pytest.mark.parametrize("shape", REFERENCES.values(), ids=REFERENCES)
def test_a_foreign_key_of_the_app_s_that_sqlite_cannot_use_is_no_reason_to_refuse(
    shape: str, is_old: bool, database_path: Path
) -> None:
    if is_old:
        old_app.make(database_path)
        run_sql(database_path, "DROP TABLE IF EXISTS users; DROP TABLE IF EXISTS messages;")
    run_sql(database_path, shape)
    with get_pattern_storage(database_path) as storage:
        storage.save_pattern(USER, "tilt", "bad_beat", 1)
        assert storage.get_pattern(USER, "tilt", "bad_beat") == 1

    down(database_path, IDS[1])
    up(database_path)

    assert snapshots.applied(database_path) == IDS
    assert snapshots.is_whole(database_path)


def test_an_app_with_a_yoyo_history_of_its_own_in_the_same_database(project: Project) -> None:
    """Its migrations are neither judged nor advised about, rolled back or dropped, and ours not by it."""
    project.write("2020_add_hats", "CREATE TABLE hats (id INTEGER PRIMARY KEY);", "DROP TABLE hats;")
    assert project.plain_yoyo("apply").returncode == 0
    location = locate(str(project.database))

    with get_pattern_storage(project.database) as storage:
        storage.save_pattern(USER, "tilt", "bad_beat", 1)
    with get_pattern_storage(project.database, migrate=False) as storage:
        assert storage.get_pattern(USER, "tilt", "bad_beat") == 1
    status = command("status", "--database", str(project.database), folder=project.folder)
    assert (status.code, "2020_add_hats" in status.out) == (0, False)
    assert project.plain_yoyo("list").stdout.count("\nA ") == 1
    assert project.plain_yoyo("rollback").returncode == 0
    assert project.plain_yoyo("apply").returncode == 0

    with engine_for(location).backend() as backend:
        ours = backend.read(schema.sources_for(location), backend.kept_migrations())
        assert "2020_add_hats" not in {one.id for one in ours}
        backend.rollback_migrations(backend.to_rollback(ours))
    assert project.applied() == ["2020_add_hats"]
    assert "hats" in project.tables()


@pytest.fixture
def shared(database_path: Path) -> Path:
    """An old database with tables of the app's that only the app can read."""
    old_app.make(database_path)
    run_sql(database_path, "DROP TABLE users; DROP TABLE messages;")
    add_app_tables(database_path)
    return database_path


@pytest.mark.slow
def test_what_only_the_app_knows_does_not_stand_in_the_way(shared: Path) -> None:
    """Opening, status, rehearse, apply, rollback, backup, restore and forget; its rows stay as they are."""
    before = app_rows(shared)

    def run(*arguments: str | Path, code: int = 0) -> str:
        done = command(*arguments, folder=shared.parent)
        assert (done.code, done.error) == (code, ""), done
        assert app_rows(shared) == before
        return done.out

    run("status", code=3)
    run("rehearse")
    with get_pattern_storage(shared) as storage:
        storage.save_pattern(USER, "tilt", "bad_beat", 1)
    run("status")
    run("export", f"{USER}")
    run("copy", shared, shared.with_name("copy.db"))
    kept = shared.with_name("kept.backup")
    run("backup", "-o", kept)
    run("forget", f"{USER}", "--yes")
    run("purge")
    down(shared, IDS[1])
    run("rehearse")
    up(shared)
    reapply = ("--revision", IDS[1], "--database", f"sqlite+atomic:///{shared}", str(FOLDER))
    ran = yoyo_in_child("reapply", "--no-config-file", "--batch", *reapply, folder=shared.parent)
    assert ran.code == 0, ran
    run("restore", kept)

    with get_pattern_storage(shared) as storage:
        assert storage.get_pattern(USER, "tilt", "bad_beat") == 1
        storage.forget_user(USER)
        assert storage.get_pattern(USER, "tilt", "bad_beat") is None
    assert app_rows(shared) == before


def test_the_app_can_give_each_connection_what_its_tables_need(shared: Path) -> None:
    connections = []

    def on_connect(connection: Any) -> None:
        connections.append(connection)
        register(connection)
        connection.row_factory = dict

    with PatternStorage(shared, on_connect=on_connect) as storage:
        storage.save_pattern(USER, "tilt", "bad_beat", 1)
        assert storage.get_pattern(USER, "tilt", "bad_beat") == 1
    assert len(connections) >= 2  # one of the migrations', one of the storage's


def test_each_new_connection_is_given_to_the_app(engine: str, migrated: str) -> None:
    """Those of a server, too; what the app raises there reaches it, and nothing stays open."""
    seen: list[Any] = []
    with get_pattern_storage(migrated, on_connect=seen.append) as storage:
        storage.save_pattern(USER, "tilt", "bad_beat", 1)
        assert storage.get_pattern(USER, "tilt", "bad_beat") == 1
    assert seen

    def refuse(connection: Any) -> None:
        seen.append(connection)
        raise LookupError

    with pytest.raises(LookupError):
        get_pattern_storage(migrated, on_connect=refuse)
    if engine == "postgresql":
        assert seen[-1].closed
