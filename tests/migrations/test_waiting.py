"""PostgreSQL: a migration that others keep from a table tries again, and leaves no INVALID index."""

from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from poker_therapist import MigrationError
from poker_therapist.postgresql import backend as backend_module
from poker_therapist.postgresql.waiting import _without_values
from tests.helpers.engines import query, run_sql
from tests.helpers.pairs import Pairs

INVALID = "SELECT relname FROM pg_index JOIN pg_class ON oid = indexrelid WHERE NOT indisvalid"


@pytest.fixture
def pairs(postgresql_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pairs:
    """A folder, and a database with a table in which two rows are the same; nobody waits long."""
    monkeypatch.setattr(backend_module, "TABLE_TIMEOUT", "300ms")
    monkeypatch.setattr(backend_module, "_SECONDS_UNTOLD", 0.5)
    run_sql(postgresql_url, "CREATE TABLE hands (id INT); INSERT INTO hands VALUES (1), (1)")
    return Pairs(tmp_path / "sql", postgresql_url)


def run(pairs: Pairs, direction: str, told: Callable[[str], None]) -> None:
    with pairs.backend() as backend:
        backend.report = told
        found = backend.read([str(pairs.folder)])
        if direction == "apply":
            backend.apply_migrations(backend.to_apply(found))
        else:
            backend.rollback_migrations(backend.to_rollback(found))


ADDS = "INSERT INTO hands VALUES (2);\n"
WAITS = {
    "one transaction": f"{ADDS}PREPARE p AS SELECT 1;\nALTER TABLE hands ADD COLUMN note TEXT;",
    "a statement": f"-- transactional: false\n{ADDS}ALTER TABLE hands ADD COLUMN note TEXT;",
    "an index": f"-- transactional: false\n{ADDS}CREATE INDEX CONCURRENTLY note ON hands (id);",
    "its end": "-- transactional: false\nCREATE INDEX note ON hands (id);\n"
    f"{ADDS}DROP INDEX CONCURRENTLY note;",
}


@pytest.mark.parametrize("direction", ["apply", "rollback"])
@pytest.mark.parametrize("what", WAITS)
def test_what_waits_says_for_whom_and_goes_on_when_they_are_done(
    what: str, direction: str, pairs: Pairs, postgresql_url: str
) -> None:
    """Whole, or from the statement on; the session that is in the way is told of before it goes."""
    texts = (WAITS[what], "SELECT 1;") if direction == "apply" else ("SELECT 1;", WAITS[what])
    pairs.write("001_wait", *texts)
    if direction == "rollback":
        pairs.apply()
    told = list[str]()
    with psycopg.connect(postgresql_url, application_name="\x1b[31mpsql") as player:
        player.execute("INSERT INTO hands VALUES (7)")

        def tell(message: str) -> None:
            told.append(message)
            if message.startswith("waiting for "):
                player.commit()

        run(pairs, direction, tell)
        pid = player.info.backend_pid

    assert told[0].startswith(
        f"waiting for session {pid} (\\x1b[31mpsql, idle in transaction, transaction since "
    )
    assert told[0].endswith("INSERT INTO hands VALUES (?)")
    assert told[1:] == ["applied 001_wait" if direction == "apply" else "rolled back 001_wait"]
    assert query(postgresql_url, "SELECT id FROM hands ORDER BY id") == [(1,), (1,), (2,), (7,)]
    assert query(postgresql_url, INVALID) == []


def test_a_transaction_of_its_own_is_not_gone_on_with_from_its_middle(
    pairs: Pairs, postgresql_url: str
) -> None:
    """Its beginning was undone with the statement that failed."""
    pairs.write(
        "001_wait", f"-- transactional: false\nBEGIN;\n{ADDS}ALTER TABLE hands ADD COLUMN note TEXT;\nCOMMIT;"
    )
    with psycopg.connect(postgresql_url) as player:
        player.execute("SELECT * FROM hands")
        with pytest.raises(MigrationError, match="is locked"):
            pairs.apply()

    assert query(postgresql_url, "SELECT id FROM hands") == [(1,), (1,)]


UNIQUE = "CREATE UNIQUE INDEX {} ON hands (id);"


@pytest.mark.parametrize("direction", ["apply", "rollback"])
@pytest.mark.parametrize(
    "index", ["CONCURRENTLY IF NOT EXISTS Once", "CONCURRENTLY once", 'IF NOT EXISTS "once"', "once"]
)
def test_an_invalid_index_is_built_again(
    index: str, direction: str, pairs: Pairs, postgresql_url: str
) -> None:
    """An earlier try, such as a killed one, has left it: IF NOT EXISTS would take it for the index."""
    with pytest.raises(psycopg.errors.UniqueViolation):
        run_sql(postgresql_url, UNIQUE.format("CONCURRENTLY once"))
    run_sql(postgresql_url, "DELETE FROM hands")
    assert query(postgresql_url, INVALID) == [("once",)]
    text = "-- transactional: false\n" * ("CONC" in index) + UNIQUE.format(index)
    pairs.write("001_once", *((text, "SELECT 1;") if direction == "apply" else ("SELECT 1;", text)))
    if direction == "rollback":
        pairs.apply()
    told = list[str]()
    run(pairs, direction, told.append)

    assert told[0] == "dropping the index once, which a failed attempt has left INVALID"
    assert query(postgresql_url, INVALID) == []
    with pytest.raises(psycopg.errors.UniqueViolation):
        run_sql(postgresql_url, "INSERT INTO hands VALUES (1), (1)")


def test_what_a_try_without_a_name_has_left_goes_when_the_index_is_built(
    pairs: Pairs, postgresql_url: str
) -> None:
    """PostgreSQL gives the next one another name; an index of another kind that is INVALID stays."""
    for text in (UNIQUE.format("CONCURRENTLY"), UNIQUE.format("CONCURRENTLY").replace("(id)", "(id DESC)")):
        with pytest.raises(psycopg.errors.UniqueViolation):
            run_sql(postgresql_url, text)
    run_sql(postgresql_url, "DELETE FROM hands")
    assert query(postgresql_url, f"{INVALID} ORDER BY 1") == [("hands_id_idx",), ("hands_id_idx1",)]
    pairs.write("001_once", f"-- transactional: false\n{UNIQUE.format('CONCURRENTLY')}")
    told = pairs.apply()

    assert told[0] == "dropping the index hands_id_idx, which a failed attempt has left INVALID"
    assert query(postgresql_url, INVALID) == [("hands_id_idx1",)]


@pytest.mark.parametrize("index", ["CONCURRENTLY once", "CONCURRENTLY", "CONCURRENTLY IF NOT EXISTS once"])
def test_an_index_that_cannot_be_built_is_left_nowhere(index: str, pairs: Pairs, postgresql_url: str) -> None:
    pairs.write("001_once", f"-- transactional: false\n{UNIQUE.format(index)}")
    for _ in range(2):
        with pytest.raises(MigrationError, match="could not create unique index"):
            pairs.apply()
        assert query(postgresql_url, INVALID) == []
        assert pairs.kept() == ["001_once"]


def test_what_reindex_has_left_is_dropped_and_others_invalid_indexes_stay(
    pairs: Pairs, postgresql_url: str
) -> None:
    run_sql(
        postgresql_url,
        "CREATE INDEX a ON hands (id); CREATE INDEX a_ccnew ON hands (id); CREATE INDEX b ON hands (id);"
        "UPDATE pg_index SET indisvalid = FALSE WHERE indexrelid IN ('b'::REGCLASS, 'a_ccnew'::REGCLASS)",
    )
    pairs.write("001_again", "-- transactional: false\nREINDEX INDEX CONCURRENTLY public.a;")
    pairs.apply()

    assert query(postgresql_url, INVALID) == [("b",)]
    assert query(
        postgresql_url,
        "SELECT indexrelid::REGCLASS::TEXT FROM pg_index WHERE indrelid = 'hands'::REGCLASS ORDER BY 1",
    ) == [("a",), ("b",)]


def test_a_partition_that_was_half_detached_is_detached(pairs: Pairs, postgresql_url: str) -> None:
    run_sql(
        postgresql_url,
        "CREATE TABLE days (day INT) PARTITION BY LIST (day);"
        "CREATE TABLE one PARTITION OF days FOR VALUES IN (1)",
    )
    detach = "ALTER TABLE days DETACH PARTITION public.one CONCURRENTLY"
    with (
        psycopg.connect(postgresql_url) as player,
        psycopg.connect(postgresql_url, autocommit=True) as operator,
    ):
        player.execute("SELECT * FROM days")
        operator.execute("SET lock_timeout = 1")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            operator.execute(detach)
    pairs.write("001_detach", f"-- transactional: false\n{detach};")
    pairs.apply()

    assert query(postgresql_url, "SELECT count(*) FROM pg_inherits") == [(0,)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("SELECT 'a', 1.5, x2, $1 FROM t -- it's", "SELECT ?, ?, x2, $1 FROM t"),
        ("SELECT E'it\\'s', $$it$$, $a$b$a$, 'open", "SELECT ?, ?, ?, "),
        ("SELECT ''" + "'open", "SELECT ?"),
        ("SELECT $a$open", "SELECT "),
        (f"SELECT {'a' * 100}", f"SELECT {'a' * 70}..."),
    ],
)
def test_the_query_of_somebody_else_is_shown_without_its_values(text: str, said: str) -> None:
    assert _without_values(text) == said
