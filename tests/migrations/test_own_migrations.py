"""The checks that any folder of pairs can have: ours passes, another passes, and what is broken fails."""

import inspect
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from poker_therapist import InvalidMigration, get_pattern_storage
from poker_therapist.migrations.scaffold import REASON
from poker_therapist.sqlite.backend import AtomicSQLiteBackend
from poker_therapist.testing import MigrationTests
from tests.helpers import old_app
from tests.helpers.engines import run_sql
from tests.helpers.migrating import FOLDER, IDS


@pytest.mark.slow
class TestOurs(MigrationTests):
    """The project's own SQLite migrations, on the rows of the earlier app and of the storage."""

    folder = FOLDER

    def populate(self, database: Path, version: str | None) -> None:
        """Put in what the earlier app wrote, under our own 001; and what the storage writes, at the end."""
        with closing(sqlite3.connect(database)) as connection:
            if version is None:
                connection.executescript(old_app.APP_TABLES)
            elif version == IDS[0]:
                old = database.with_name("old.db")
                old_app.make(old, rows=36)
                old_app.add_odd_rows(old)
                connection.execute("ATTACH ? AS old", (str(old),))
                for table in old_app.TABLES:
                    connection.execute(f"INSERT INTO {table} SELECT * FROM old.{table}")
                connection.commit()
        if version == IDS[-1]:
            with get_pattern_storage(database) as storage:
                storage.save_pattern(7, "tilt", "new", {"a": 1})


# Somebody else's migrations: tables, a change of the rows, a trigger and a view.
THEIRS = {
    "0001.init": """-- Hands, and what was bet in them.
CREATE TABLE hands (id INTEGER PRIMARY KEY AUTOINCREMENT, note TEXT NOT NULL);
CREATE TABLE bets (id INTEGER PRIMARY KEY, hand INTEGER REFERENCES hands (id) ON DELETE CASCADE, size REAL);
""",
    "0001.init.rollback": """-- Both go, with their rows.
DROP TABLE bets;
DROP TABLE hands;
""",
    "0002.cents": """-- Money is counted in cents: reals do not add up.
-- depends: 0001.init
UPDATE bets SET size = size * 100;
""",
    "0002.cents.rollback": """-- Back to whole units.
UPDATE bets SET size = size / 100;
""",
    "0003.pots": """-- What is in the middle, kept up to date by the database; and who looks at it.
-- depends: 0002.cents
ALTER TABLE hands ADD COLUMN pot REAL NOT NULL DEFAULT 0;
UPDATE hands SET pot = (SELECT coalesce(sum(size), 0) FROM bets WHERE hand = hands.id);
CREATE TRIGGER bets_to_pot AFTER INSERT ON bets
BEGIN
    UPDATE hands SET pot = pot + new.size WHERE id = new.hand;
END;
CREATE VIEW big_hands AS SELECT id, note FROM hands WHERE pot > 100;
""",
    "0003.pots.rollback": """-- They can be summed up again from the bets.
DROP VIEW big_hands;
DROP TRIGGER bets_to_pot;
ALTER TABLE hands DROP COLUMN pot;
""",
}
CHECKS = [name for name in dir(MigrationTests) if name.startswith("test_")]


class Theirs(MigrationTests):
    """Another project's folder, as that project would test it; `folder` is set for each test."""

    def populate(self, database: Path, version: str | None) -> None:
        if version == "0001.init":
            run_sql(
                database,
                "INSERT INTO hands (note) VALUES ('river'), ('flop');"
                "INSERT INTO bets (hand, size) VALUES (1, 1.5), (1, NULL), (2, 3.0);",
            )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that is not ours."""
    (tmp_path / "migrations").mkdir()
    for name, text in THEIRS.items():
        (tmp_path / "migrations" / f"{name}.sql").write_text(text, encoding="utf-8")
    return tmp_path / "migrations"


def check(name: str, folder: Path, irreversible: frozenset[str] = frozenset()) -> None:
    """Run one of the checks on a folder, as pytest would."""
    kind = type("TheirTests", (Theirs,), {"folder": folder, "irreversible": irreversible})
    test = getattr(kind(), name)
    arguments = {"tmp_path": folder.parent / "tests"}
    arguments["tmp_path"].mkdir()
    test(**{argument: arguments[argument] for argument in inspect.signature(test).parameters})


def test_these_are_the_checks() -> None:
    """Each has a test below that breaks a folder for it."""
    assert set(CHECKS) == {PAIRS, SPLIT, ROUND_TRIP, KILL}


@pytest.mark.slow
@pytest.mark.parametrize("name", CHECKS)
def test_a_folder_that_is_not_ours_passes(name: str, folder: Path) -> None:
    check(name, folder)


PAIRS = "test_every_file_is_half_of_a_pair_and_says_why"
SPLIT = "test_plain_yoyo_splits_the_statements_as_sqlite_does"
ROUND_TRIP = "test_every_migration_goes_up_and_down_and_up"
KILL = "test_a_kill_at_any_statement_leaves_nothing_to_repair"


def without(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / f"{name}.sql").unlink()


def with_text(name: str, text: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / f"{name}.sql").write_text(text, encoding="utf-8")

    return write


def instead(name: str, before: str, after: str) -> Callable[[Path], None]:
    assert before in THEIRS[name]
    return with_text(name, THEIRS[name].replace(before, after))


BROKEN = {
    "a rollback is missing": (PAIRS, without("0002.cents.rollback"), "0002.cents.rollback.sql is missing"),
    "a rollback is alone": (PAIRS, without("0003.pots"), "is a rollback script"),
    "no reason": (
        PAIRS, with_text("0002.cents", "UPDATE bets SET size = size * 100;"),
        "0002.cents has no comment at its top",
    ),
    "no reason for the rollback": (
        PAIRS, with_text("0002.cents.rollback", "UPDATE bets SET size = size / 100;"),
        "0002.cents has no comment at its top",
    ),
    "not filled in": (
        PAIRS, with_text("0002.cents.rollback", f"-- {REASON}\n"), "0002.cents is an unfilled template"
    ),
    "a COMMIT": (
        PAIRS, instead("0002.cents", "UPDATE", "COMMIT;\nUPDATE"), "COMMIT would end the transaction"
    ),
    "a dependency that is not there": (
        PAIRS, instead("0002.cents", "0001.init", "0001.in"), "depends on 0001.in, which does not exist"
    ),
    "a backslash before a quote": (
        SPLIT, with_text("0002.cents", "-- So.\nSELECT '\\';\nSELECT ';';"),
        "plain yoyo would split 0002.cents differently",
    ),
    "a rollback that forgets": (
        ROUND_TRIP, instead("0003.pots.rollback", "DROP VIEW big_hands;\n", "SELECT 1;\n"),
        "no such column: pot",
    ),
    "a rollback that leaves something": (
        ROUND_TRIP, with_text("0003.pots.rollback", "-- Nothing to undo."),
        r"0003\.pots:\ncolumn hands\.pot exists, but should not",
    ),
    "a rollback that loses rows": (
        ROUND_TRIP, instead("0002.cents.rollback", "UPDATE bets SET size = size / 100", "DELETE FROM bets"),
        "0002.cents:\nbets: 3 rows differ",
    ),
    "a statement that fails in a child": (
        KILL, instead("0003.pots", "UPDATE hands SET pot = (SELECT", "UPDATE hand SET pot = (SELECT"),
        r"apply of all .* failed\n.*migrations/0003\.pots\.sql:4: no such table: hand\n    UPDATE hand SET",
    ),
    "what is done twice after a kill": (
        KILL, with_text("0003.pots", "-- So.\n-- transactional: false\n-- depends: 0002.cents\n"
            "INSERT INTO hands (note) VALUES ('turn');\nCREATE INDEX IF NOT EXISTS sizes ON bets (size);"),
        r"^the database differs after a kill at .* of apply, before\n    CREATE INDEX .*\nhands: 1 row",
    ),
    "a migration that fails on rows": (
        ROUND_TRIP, instead("0003.pots", "coalesce(sum(size), 0)", "sum(nullif(size, 300))"),
        "NOT NULL constraint failed: hands.pot",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_folder_fails_its_check(fault: str, folder: Path) -> None:
    """With what is wrong, and in which migration."""
    name, spoil, says = BROKEN[fault]
    spoil(folder)
    with pytest.raises((AssertionError, InvalidMigration), match=says):
        check(name, folder)


def test_what_is_known_to_be_irreversible_may_be_and_nothing_else(folder: Path) -> None:
    """An id that is named must be irreversible: the list would go stale otherwise."""
    with_text("0003.pots.rollback", "-- The pots stay.\nSELECT 1;")(folder)
    check(ROUND_TRIP, folder, irreversible=frozenset({"0003.pots"}))


def test_naming_too_many_as_irreversible_fails(folder: Path) -> None:
    with pytest.raises(AssertionError, match=r"^0002\.cents"):
        check(ROUND_TRIP, folder, irreversible=frozenset({"0002.cents"}))


def test_a_promise_that_is_not_kept_fails(folder: Path) -> None:
    """A migration that says `-- compatible: true`, as a rehearsal judges it."""
    claim = "-- So.\n-- depends: 0001.init\n-- compatible: true\n"
    with_text("0002.cents", f"{claim}CREATE UNIQUE INDEX sizes ON bets (hand, size);")(folder)
    with_text("0002.cents.rollback", "-- It goes.\nDROP INDEX sizes;")(folder)
    with pytest.raises(
        AssertionError, match=r"0002\.cents declares .*\na new unique key of bets on \(hand, size\)"
    ):
        check(ROUND_TRIP, folder)


def commits_on_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commit each statement by itself, as if the whole were no transaction."""
    run = AtomicSQLiteBackend.run

    def run_and_commit(self: AtomicSQLiteBackend, *arguments: object) -> None:
        run(self, *arguments)  # type: ignore[arg-type]  # as it was called
        self.connection.commit()
        self.connection.execute("BEGIN IMMEDIATE")

    monkeypatch.setattr(AtomicSQLiteBackend, "run", run_and_commit)


def begins_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Begin no transaction at all."""

    def begin(self: AtomicSQLiteBackend) -> None:
        self._in_transaction = True

    monkeypatch.setattr(AtomicSQLiteBackend, "begin", begin)


def records_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commit the statements, and then the record of them, as plain yoyo does."""
    record = AtomicSQLiteBackend._record

    def commit_and_record(self: AtomicSQLiteBackend, *arguments: object, **more: object) -> None:
        self.connection.commit()
        self.connection.execute("BEGIN IMMEDIATE")
        record(self, *arguments, **more)  # type: ignore[arg-type]  # as it was called

    monkeypatch.setattr(AtomicSQLiteBackend, "_record", commit_and_record)


# With the statement, and why the same command does not go on.
STUCK = r"stuck after a kill at statement \d+ of \w+, before\n    [A-Z]+.*\n(.|\n)*0001\.init"


@pytest.mark.parametrize(
    "spoil",
    [
        commits_on_the_way,
        pytest.param(begins_nothing, marks=pytest.mark.slow),
        pytest.param(records_later, marks=pytest.mark.slow),
    ],
)
def test_a_backend_that_is_not_atomic_fails_the_kill(
    spoil: Callable[[pytest.MonkeyPatch], None], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was done before the kill is in the way of what is done again."""
    for file in (*folder.glob("0002*"), *folder.glob("0003*")):  # one migration suffices to see it
        file.unlink()
    spoil(monkeypatch)
    with pytest.raises(AssertionError, match=STUCK):
        check(KILL, folder)
