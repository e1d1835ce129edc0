"""yoyo's documented Python interface works with our backends."""

from pathlib import Path

import pytest
from yoyo import get_backend, read_migrations

from poker_therapist.errors import MigrationEdited, MigrationError, MigrationFailed
from tests.helpers.project import Project


def url(project: Project) -> str:
    return project.url_for(project.atomic, "")


def apply(project: Project) -> None:
    """As the page of yoyo's has it."""
    backend = get_backend(url(project))
    migrations = read_migrations(str(project.sql))
    with backend.lock():
        backend.apply_migrations(backend.to_apply(migrations))


def test_migrations_are_applied_and_rolled_back(two_migrations: Project) -> None:
    """And their texts are kept, as the command keeps them."""
    apply(two_migrations)
    assert two_migrations.applied() == ["001_add_hands", "002_add_bets"]
    assert two_migrations.query("SELECT count(*) FROM _migration_text") == [(2,)]

    backend = get_backend(url(two_migrations))
    migrations = read_migrations(str(two_migrations.sql))
    assert [one.id for one in backend.to_apply(migrations)] == []
    with backend.lock():
        backend.rollback_migrations(backend.to_rollback(migrations))
    assert two_migrations.applied() == []
    assert two_migrations.tables() == []


def test_single_migrations_and_selections_are_taken(two_migrations: Project) -> None:
    migrations = read_migrations(str(two_migrations.sql))
    backend = get_backend(url(two_migrations))
    backend.apply_one(migrations[0])
    assert backend.is_applied(migrations[0])
    backend.apply_migrations(migrations.filter(lambda one: one.id == "002_add_bets"))
    backend.rollback_one(migrations[1])
    assert two_migrations.applied() == ["001_add_hands"]
    backend.mark_migrations(migrations)
    assert two_migrations.applied() == ["001_add_hands", "002_add_bets"]
    backend.unmark_migrations(migrations)
    assert two_migrations.applied() == []


def test_what_fails_is_our_error_and_undone(project: Project) -> None:
    project.write("001_fail", "CREATE TABLE half (id INTEGER);\nINSERT INTO nowhere VALUES (1);")
    with pytest.raises(MigrationFailed, match=r"001_fail\.sql:2"):
        apply(project)
    assert project.tables() == []


def test_what_was_edited_is_refused(two_migrations: Project) -> None:
    apply(two_migrations)
    (two_migrations.sql / "001_add_hands.sql").write_text("CREATE TABLE hands (id INTEGER);")
    with pytest.raises(MigrationEdited):
        apply(two_migrations)


def test_hooks_and_several_folders_are_taken(two_migrations: Project) -> None:
    more = two_migrations.folder / "more"
    more.mkdir()
    for file in two_migrations.sql.glob("002*"):
        file.rename(more / file.name)
    (more / "post-apply.sql").write_text("CREATE TABLE IF NOT EXISTS hooked (id INTEGER);")
    backend = get_backend(url(two_migrations))
    migrations = read_migrations(str(two_migrations.sql), str(Path(more)))
    backend.apply_migrations(backend.to_apply(migrations))

    assert sorted(two_migrations.tables()) == ["bets", "hands", "hooked"]


def test_a_program_has_to_allow_that_rows_are_lost(two_migrations: Project) -> None:
    """As yoyo's command has to, by its ini file."""
    apply(two_migrations)
    two_migrations.run_sql("INSERT INTO hands VALUES (1)")
    backend = get_backend(url(two_migrations))
    migrations = read_migrations(str(two_migrations.sql))

    with pytest.raises(MigrationError, match=r"delete 1 row of hands.* `allow_data_loss = True`"):
        backend.rollback_migrations(backend.to_rollback(migrations))
    assert two_migrations.query("SELECT * FROM hands") == [(1,)]
    backend.allow_data_loss = True
    backend.rollback_migrations(backend.to_rollback(migrations))
    assert two_migrations.applied() == []
