"""What a rehearsal says of locks is what really waits: readers, writers, saves of the same rows, VACUUM."""

from collections.abc import Iterator
from contextlib import closing, suppress
from typing import NamedTuple

import psycopg
import pytest

from poker_therapist.location import locate
from poker_therapist.migrations.effects import code
from poker_therapist.migrations.files import SQLMigration, Statement
from poker_therapist.migrations.lock_report import EVERYBODY, MAINTENANCE, SAME_ROWS, WRITERS, LockReport
from poker_therapist.postgresql import rehearsal
from poker_therapist.postgresql.lock_report import ObservedBackend
from poker_therapist.postgresql.locks import locks
from poker_therapist.schema import rehearse
from tests.helpers.cli import command
from tests.helpers.databases import Databases
from tests.helpers.engines import is_server, run_sql
from tests.helpers.postgresql import server_location
from tests.helpers.project import Project

SETUP = """
    CREATE TABLE hands (id INT, note TEXT);
    INSERT INTO hands SELECT id, 'flop' FROM generate_series(1, 100) AS id;
    CREATE UNIQUE INDEX by_id ON hands (id);
    ALTER TABLE hands ADD CONSTRAINT noted CHECK (note <> '') NOT VALID;
    CREATE TABLE bets (hand INT);
    CREATE TABLE parent (id INT);
    INSERT INTO bets VALUES (1);
    CREATE TRIGGER again BEFORE UPDATE ON hands FOR EACH ROW
    EXECUTE FUNCTION suppress_redundant_updates_trigger();
    ALTER TABLE hands DISABLE TRIGGER again;
    CREATE RULE never AS ON DELETE TO bets DO INSTEAD NOTHING;
"""


class Kind(NamedTuple):
    """A statement, who waits for hands meanwhile, and what it does to that beside."""

    text: str
    who: str = ""
    rewritten: bool = False
    scanned: bool = False
    rows: dict[str, int] | None = None


KINDS = [
    Kind("ALTER TABLE hands ADD COLUMN stake INT", EVERYBODY),
    Kind("ALTER TABLE hands ADD COLUMN at FLOAT DEFAULT random()", EVERYBODY, rewritten=True, scanned=True),
    Kind("ALTER TABLE hands ALTER id TYPE BIGINT", EVERYBODY, rewritten=True, scanned=True),
    Kind("ALTER TABLE hands ALTER id SET NOT NULL", EVERYBODY, scanned=True),
    Kind("ALTER TABLE hands ADD CHECK (id > 0)", EVERYBODY, scanned=True),
    Kind("ALTER TABLE hands ADD CHECK (id > 0) NOT VALID", EVERYBODY),
    Kind("ALTER TABLE hands ADD PRIMARY KEY USING INDEX by_id", EVERYBODY, scanned=True),
    Kind("ALTER TABLE hands RENAME TO games", EVERYBODY),
    Kind("ALTER TABLE hands RENAME note TO remark", EVERYBODY),
    Kind("ALTER TABLE hands DROP CONSTRAINT noted", EVERYBODY),
    Kind("ALTER TABLE hands ENABLE ROW LEVEL SECURITY", EVERYBODY),
    Kind("CREATE POLICY mine ON hands USING (TRUE)", EVERYBODY),
    Kind("DROP INDEX by_id", EVERYBODY),
    Kind("DROP TRIGGER again ON hands", EVERYBODY),
    Kind("DROP TABLE hands", EVERYBODY),
    Kind("TRUNCATE hands", EVERYBODY, rewritten=True),
    Kind("CLUSTER hands USING by_id", EVERYBODY, rewritten=True, scanned=True),
    Kind("REINDEX INDEX by_id", EVERYBODY, scanned=True),
    Kind("REINDEX TABLE hands", EVERYBODY, scanned=True),
    Kind("LOCK TABLE hands", EVERYBODY),
    Kind("TRUNCATE bets, ONLY hands", EVERYBODY, rewritten=True),
    Kind("DROP TABLE bets, hands", EVERYBODY),
    Kind("LOCK bets, hands IN SHARE ROW EXCLUSIVE MODE", WRITERS),
    Kind("ALTER TABLE hands INHERIT parent", EVERYBODY),
    Kind("CREATE TABLE kid () INHERITS (hands)", MAINTENANCE),
    Kind("CREATE PUBLICATION news FOR TABLE bets, hands", MAINTENANCE),
    Kind("COMMENT ON COLUMN hands.id IS 'number'", MAINTENANCE),
    Kind("COMMENT ON TRIGGER again ON hands IS 'again'"),
    Kind("ANALYZE bets (hand), hands", MAINTENANCE),
    Kind("LOCK TABLE hands IN EXCLUSIVE MODE", WRITERS),
    Kind("CREATE INDEX by_note ON hands (note)", WRITERS, scanned=True),
    Kind(
        "CREATE TRIGGER also BEFORE UPDATE ON hands EXECUTE FUNCTION suppress_redundant_updates_trigger()",
        WRITERS,
    ),
    Kind("ALTER TABLE hands ENABLE TRIGGER again", WRITERS),
    Kind("ALTER TABLE bets ADD FOREIGN KEY (hand) REFERENCES hands (id)", WRITERS, scanned=True),
    Kind("CREATE TABLE seats (hand INT REFERENCES hands (id))", WRITERS),
    Kind("UPDATE hands SET id = id + 1000", SAME_ROWS, scanned=True, rows={"updated": 100}),
    Kind("DELETE FROM hands", SAME_ROWS, scanned=True, rows={"deleted": 100}),
    Kind("ALTER TABLE hands VALIDATE CONSTRAINT noted", MAINTENANCE, scanned=True),
    Kind("ALTER TABLE hands SET (fillfactor = 90)", MAINTENANCE),
    Kind("ALTER TABLE hands ALTER id SET STATISTICS 9", MAINTENANCE),
    Kind("COMMENT ON TABLE hands IS 'played'", MAINTENANCE),
    Kind("CREATE STATISTICS related ON id, note FROM hands", MAINTENANCE),
    Kind("ALTER INDEX by_id RENAME TO by_number"),
    Kind("ANALYZE hands", MAINTENANCE),
    Kind("INSERT INTO hands VALUES (1001)", rows={"inserted": 1}),
    Kind("CREATE VIEW late AS SELECT * FROM hands"),
    Kind("CREATE TABLE copied AS SELECT * FROM hands", scanned=True),
    Kind("SELECT count(*) FROM hands", scanned=True),
]
# What each of them does, in a transaction that is undone; the same row is updated only by the third.
ASKED = {
    "reader": "SELECT count(*) FROM hands",
    "writer": "INSERT INTO hands VALUES (2000)",
    "same row": "UPDATE hands SET note = 'turn' WHERE id = 1",
    "vacuum": "LOCK TABLE hands IN SHARE UPDATE EXCLUSIVE MODE",
}
WAITING = {
    EVERYBODY: {"reader", "writer", "same row", "vacuum"},
    WRITERS: {"writer", "same row", "vacuum"},
    SAME_ROWS: {"same row"},
    MAINTENANCE: {"vacuum"},
    "": set[str](),
}


@pytest.fixture(scope="module")
def hands(databases: Databases) -> Iterator[str]:
    """A database with a table, for tests that commit nothing."""
    with databases.fresh() as url:
        run_sql(url, SETUP)
        yield url


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.text)
def test_who_waits_is_who_is_said_to(kind: Kind, hands: str) -> None:
    """With a real reader, writers and a VACUUM's lock while it is not committed; and `plan` foretells it."""
    report = LockReport()
    migration = SQLMigration("001_try", None, "here", kind.text, "")
    with ObservedBackend(server_location(hands), report) as backend:
        backend.begin()
        with backend.migration_names():
            backend.run(migration, Statement(f"{kind.text};", 1), "apply")
        held = {who for who, table, _ in report.held() if table == "hands"}
        waiting = set[str]()
        with closing(psycopg.connect(hands)) as other:
            other.execute("SET lock_timeout = '20ms'")
            other.commit()
            for name, sql in ASKED.items():
                with suppress(psycopg.errors.UndefinedTable):  # it was dropped by who was waited for
                    try:
                        other.execute(sql.encode())
                    except psycopg.errors.LockNotAvailable:
                        waiting.add(name)
                other.rollback()
        (said,) = report.statements
        backend.rollback()

    assert waiting == WAITING[kind.who]
    assert held == ({kind.who} if kind.who else set())
    assert ("hands" in said.rewritten, "hands" in said.scanned) == (kind.rewritten, kind.scanned)
    assert said.rows == ({"hands": kind.rows} if kind.rows else {})
    foretold = {lock.mode for lock in locks(code(kind.text)) if lock.table == "hands"}
    taken = {mode for mode, table in said.locks if table == "hands"}
    assert foretold <= taken, (foretold, taken)
    blocking = {"SHARE", "SHARE ROW EXCLUSIVE", "EXCLUSIVE", "ACCESS EXCLUSIVE", "SHARE UPDATE EXCLUSIVE"}
    assert bool(foretold & blocking) == bool(taken & blocking) or "by_id" in kind.text


@pytest.fixture
def waits(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project with a table, and two migrations of it, of which no transaction holds the second."""
    monkeypatch.chdir(project.folder)
    project.write("000_hands", "CREATE TABLE hands (id INTEGER, note TEXT);", "DROP TABLE hands;")
    assert project.yoyo("apply").returncode == 0
    project.run_sql("INSERT INTO hands VALUES (1, 'a'), (2, 'b')")
    project.write(
        "001_stake",
        "-- depends: 000_hands\nALTER TABLE hands ADD COLUMN stake INTEGER;\n"
        "UPDATE hands SET note = note;\nSELECT 1;",
        "ALTER TABLE hands DROP COLUMN stake;",
    )
    project.write(
        "002_index",
        "-- transactional: false\n-- depends: 001_stake\n"
        f"CREATE INDEX {'CONCURRENTLY ' * is_server(project.database)}by_id ON hands (id);\nSELECT 1;",
        "DROP INDEX by_id;",
    )
    return project


@pytest.mark.slow
@pytest.mark.usefixtures("own_copies")
def test_a_rehearsal_says_for_whom_others_would_wait_and_max_lock_judges_it(
    waits: Project, engine: str
) -> None:
    """In both directions; in a scratch schema by the real names."""
    everybody = EVERYBODY if engine == "postgresql" else WRITERS
    table = "hands" if engine == "postgresql" else "the database"
    with (
        psycopg.connect(str(waits.database))
        if engine == "postgresql"
        else pytest.MonkeyPatch.context() as who
    ):
        if isinstance(who, psycopg.Connection):
            who.execute("SELECT 1")
            patched = pytest.MonkeyPatch()
            patched.setattr(rehearsal, "_PATIENCE", 0.05)
        found = rehearse(locate(str(waits.database)), sources=["sql"]).migrations
        if isinstance(who, psycopg.Connection):
            patched.undo()
    first, second = (one.locks for one in found)

    assert [(one.who, one.table) for one in first["apply"].waits] == [(everybody, table)]
    assert [(one.who, one.table) for one in first["rollback"].waits] == [(everybody, table)]
    assert [one.line for one in first["apply"].statements] == [2, 3, 4]
    assert first["apply"].waits[0].seconds >= sum(one.seconds for one in first["apply"].statements)
    if engine == "postgresql":
        assert first["apply"].statements[1].rows == {"hands": {"updated": 2}}
        assert [(one.who, one.table) for one in second["apply"].waits] == [(MAINTENANCE, "hands")]
        assert [one.is_foretold for one in second["apply"].statements] == [True, False]

    asked = ("rehearse", "-d", str(waits.database), "--sources", "sql")
    for most, code_ in (("0", 4), ("60", 0)):
        ran = command(*asked, "--max-lock", most, folder=waits.folder)
        machine = command(*asked, "--max-lock", most, "--json", folder=waits.folder)
        assert (ran.code, machine.code) == (code_, code_), ran.out
        assert any(line.startswith("Other sessions would wait for a lock for 0.") for line in ran.lines)
        told = f"001_stake, apply: {everybody} of {table} wait 0."
        assert any(line.startswith(told) for line in ran.lines) == (code_ == 4)
        assert ("longer than --max-lock 0" in ran.out) == (code_ == 4)
        of_apply = machine.json["migrations"][0]["locks"]["apply"]
        assert (of_apply["waits"][0]["who"], of_apply["waits"][0]["table"]) == (everybody, table)
