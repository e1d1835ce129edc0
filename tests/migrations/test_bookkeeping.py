"""Each of yoyo's tables has texts of its own, and what a migration leaves broken names the migration."""

from contextlib import suppress
from pathlib import Path

import pytest

from poker_therapist import MigrationFailed
from tests.helpers.cli import command
from tests.helpers.engines import postgresql_only, query, run_sql, sqlite_only
from tests.helpers.pairs import Pairs
from tests.helpers.project import Project


def test_a_rollback_drops_its_own_text_and_no_other_table_s(database: str, tmp_path: Path) -> None:
    """Two tables of yoyo's in one database may record the same id."""
    ours, theirs = Pairs(tmp_path / "ours", database), Pairs(tmp_path / "theirs", database, "theirs")
    ids = ["001_add_it", "002_note_it"]
    for pairs, table in ((ours, "hands"), (theirs, "bets")):
        pairs.write(ids[0], f"CREATE TABLE {table} (id INT);", f"DROP TABLE {table};")
        pairs.write(ids[1], f"INSERT INTO {table} VALUES (1);", f"DELETE FROM {table};")
    ours.apply()
    # yoyo 9 makes its first table of this kind, and fails over the second: its log is there already.
    run_sql(database, "CREATE TABLE theirs AS SELECT * FROM _yoyo_migration WHERE 1 = 0")
    theirs.apply()
    assert (ours.kept(), theirs.kept()) == (ids, ids)

    ours.roll_back()

    assert (ours.kept(), theirs.kept()) == ([], ids)

    theirs.roll_back()

    assert query(database, "SELECT migration_table, migration_id FROM _migration_text") == []


@pytest.mark.parametrize("transactional", ["true", "false"])
def test_each_migration_that_is_applied_or_rolled_back_is_reported_once(
    transactional: str, database: str, tmp_path: Path
) -> None:
    pairs = Pairs(tmp_path / "sql", database)
    for name in ("001_add_it", "002_note_it"):
        pairs.write(name, f"-- transactional: {transactional}\nSELECT 1;")
    with pairs.backend() as backend:
        backend.create_database()

    assert pairs.apply() == ["applied 001_add_it", "applied 002_note_it"]
    assert pairs.apply() == ["nothing to apply: the database is up to date"]
    assert pairs.roll_back() == ["rolled back 002_note_it", "rolled back 001_add_it"]
    assert pairs.roll_back() == ["nothing to roll back"]


def test_what_a_transaction_changes_itself_and_others_before_it_is_seen_at_once(
    database: str, tmp_path: Path
) -> None:
    """What is asked again and again is read again after a change: of rows, of the schema, or undone."""
    pairs = Pairs(tmp_path / "sql", database)
    for name in ("001_add_it", "002_note_it"):
        pairs.write(name, "SELECT 1;")
    pairs.apply()
    forget = "DELETE FROM {} WHERE migration_id = '00{}_{}_it'"

    def seen() -> tuple[list[str], list[str], list[str], bool]:
        kept = [one.id[:3] for one in backend.kept_migrations()]
        there = "table hands" in backend.present() and "hands" in backend.list_tables()
        return [one[:3] for one in backend.applied()], sorted(backend.records()), kept, there

    ids, both = ["001_add_it", "002_note_it"], ["001", "002"]
    with pairs.backend() as backend, backend.migration_lock():
        with backend.one_transaction(), backend.migration_names():
            assert seen() == seen() == (both, ids, both, False)
            backend.execute(forget.format("_yoyo_migration", 2, "note"))
            assert seen() == (["001"], ids, ["001"], False)
            with suppress(ZeroDivisionError), backend.transaction():  # a savepoint
                backend.execute(forget.format("_migration_text", 1, "add"))
                assert seen() == (["001"], ids[1:], [], False)
                raise ZeroDivisionError
            assert seen() == (["001"], ids, ["001"], False)
            backend.execute("CREATE TABLE hands (id INT)")
            assert seen() == (["001"], ids, ["001"], True)
            backend.execute("DROP TABLE _yoyo_migration")
            assert seen() == ([], ids, [], True)
            backend.rollback()
        for one, kept in ((2, ids), (1, ids[:1])):
            with backend.one_transaction():
                assert seen() == (both, kept, [name[:3] for name in kept], False)
            run_sql(database, forget.format("_migration_text", one, "note" if one == 2 else "add"))
        assert seen() == (both, [], [], False)


# In the order in which `SELECT *` gives them, those that are read to decide something.
READ = {
    "_yoyo_migration": ("migration_hash", "migration_id", "applied_at_utc"),
    "_yoyo_version": ("version",),
    "_yoyo_log": ("created_at_utc", "operation"),
    "_migration_text": (
        "migration_table",
        "migration_id",
        "applied_at",
        "checksum",
        "apply_sql",
        "rollback_sql",
    ),
    "_migration_adopted": ("migration_table", "migration_id", "table_name"),
}


@pytest.mark.slow
@pytest.mark.parametrize("table", READ)
def test_what_nobody_records_is_no_traceback(table: str, engine: str, project: Project) -> None:
    """A NULL, or bytes, in a table that has lost its constraints: each command ends in a message or works."""
    project.run_sql("CREATE TABLE hands (id INTEGER)")
    project.write("001_add_hands", "CREATE TABLE IF NOT EXISTS hands (id INTEGER);", "DROP TABLE hands;")
    project.write("002_add_bets", "CREATE TABLE bets (id INTEGER);", "DROP TABLE bets;")
    assert project.yoyo("apply").returncode == 0
    sql = ["--sources", "sql"]
    kept = [name for name in READ if name != table]
    project.run_sql(";".join(f"CREATE TABLE kept{name} AS SELECT * FROM {name}" for name in READ))
    codes = set[int]()
    for column in READ[table]:
        # On SQLite a column of any type takes bytes.
        odd = [f"UPDATE {table} SET {column} = {value}" for value in ("NULL", "x'00ff'")]
        if engine == "postgresql":
            odd = odd[:1]
        if engine == "postgresql" and column == "migration_id":
            odd = [f"ALTER TABLE {table} ALTER {column} TYPE BYTEA USING '\\x00ff'"]
        for change in odd:
            project.run_sql(
                f"DROP TABLE {table}; CREATE TABLE {table} AS SELECT * FROM kept{table}; {change};"
                + ";".join(
                    f"DELETE FROM {name}; INSERT INTO {name} SELECT * FROM kept{name}" for name in kept
                )
            )
            for words in (
                ["log"],
                ["status", *sql],
                ["rollback", "--to", "001", "--yes", *sql],
                ["apply", *sql],
            ):
                ran = command(*words, "-d", str(project.database), folder=project.folder)
                codes.add(ran.code)
                assert ran.error.count("poker-therapist: ") == (ran.code == 1), ran
    assert codes <= {0, 1, 3, 4}


# What breaks a foreign key, and how SQLite notices that something has changed


WITHOUT_PARENT = {
    "rows": "INSERT INTO hands (id, player) VALUES (2, 8);",
    # Neither of these changes a row.
    "a new column": "ALTER TABLE hands ADD COLUMN dealer INTEGER DEFAULT 9 REFERENCES players (id);",
    "no parent": "DROP TABLE players;",
}


@sqlite_only
@pytest.mark.parametrize("what", WITHOUT_PARENT)
def test_rows_without_their_parent_are_refused_whatever_made_them(
    what: str, database: str, tmp_path: Path
) -> None:
    pairs = Pairs(tmp_path / "sql", database)
    pairs.write(
        "001_add_hands",
        "CREATE TABLE players (id INTEGER PRIMARY KEY);\n"
        "CREATE TABLE hands (id INTEGER PRIMARY KEY, player INTEGER REFERENCES players (id));\n"
        "INSERT INTO players VALUES (7);\nINSERT INTO hands VALUES (1, 7);",
    )
    pairs.apply()
    pairs.write("002_break_it", f"-- depends: 001_add_hands\n{WITHOUT_PARENT[what]}")
    with pytest.raises(
        MigrationFailed, match=r"row \d of hands would violate its foreign key to players"
    ) as refusal:
        pairs.apply()

    assert refusal.value.migration_id == "002_break_it"
    assert pairs.kept() == ["001_add_hands"]
    assert query(database, "SELECT * FROM hands") == [(1, 7)]
    assert query(database, "SELECT * FROM players") == [(7,)]


@postgresql_only
@pytest.mark.parametrize("direction", ["apply", "rollback"])
def test_a_deferred_constraint_that_is_broken_names_the_migration(
    direction: str, database: str, tmp_path: Path
) -> None:
    """The server checks it at the COMMIT, where no statement is to blame; the row is told as well."""
    run_sql(
        database,
        "CREATE TABLE players (id INT PRIMARY KEY);"
        "CREATE TABLE hands (player INT REFERENCES players DEFERRABLE INITIALLY DEFERRED)",
    )
    breaks = "INSERT INTO hands VALUES (7);"
    pairs = Pairs(tmp_path / "sql", database)
    if direction == "apply":
        pairs.write("001_break_it", breaks)
    else:
        pairs.write("001_break_it", "SELECT 1;", breaks)
        pairs.apply()
    with pytest.raises(MigrationFailed) as refusal:
        (pairs.apply if direction == "apply" else pairs.roll_back)()

    ending = ".sql" if direction == "apply" else ".rollback.sql"
    assert refusal.value.file is not None
    assert refusal.value.file.endswith(f"001_break_it{ending}")
    assert str(refusal.value) == (
        f'{refusal.value.file}: insert or update on table "hands" violates foreign key constraint '
        '"hands_player_fkey" (Key (player)=(7) is not present in table "players"): correct the migration. '
        "All changes of 001_break_it were undone."
    )
    assert refusal.value.migration_id == "001_break_it"
    assert query(database, "SELECT count(*) FROM hands") == [(0,)]
