"""What a rollback has really lost is seen before its commit, whatever its text says of it."""

import pytest

from poker_therapist.engines import engine_for
from poker_therapist.errors import MigrationError
from poker_therapist.location import locate
from poker_therapist.migrations.meanwhile import refusal
from poker_therapist.migrations.run import roll_back
from tests.helpers.cli import command
from tests.helpers.engines import is_server
from tests.helpers.project import Project

TABLES = (
    "CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT, b TEXT);"
    "INSERT INTO t VALUES (1, 'One', 'x'), (2, 'Two', NULL);"
    "CREATE TABLE o (id INTEGER PRIMARY KEY, t_id INTEGER, v TEXT);"
    "INSERT INTO o VALUES (1, 1, 'p'), (2, 1, 'q'), (3, 2, 'r');"
)
REBUILT = (
    "CREATE TABLE n (id INTEGER, a TEXT, b TEXT{}); INSERT INTO n {}; DROP TABLE t;ALTER TABLE n RENAME TO t;"
)
# Of each: what is made before, and the rollback, which loses rows or values.
LOSES = [
    ("", "CREATE TEMP TABLE k AS SELECT * FROM o; DROP TABLE o;"),
    ("", "CREATE TABLE IF NOT EXISTS o AS SELECT * FROM t; DROP TABLE t;"),
    ("", "CREATE TABLE k AS SELECT * FROM o; DELETE FROM k; DROP TABLE o;"),
    ("", "CREATE TABLE k AS SELECT * FROM o; UPDATE k SET v = ''; DROP TABLE o;"),
    ("", "INSERT INTO t (id, a) VALUES (1, 'z') ON CONFLICT (id) DO UPDATE SET a = excluded.a;"),
    ("", "UPDATE t SET a = q.a FROM (SELECT 1 AS id, 'z' AS a) AS q WHERE q.id = t.id;"),
    ("", "UPDATE t SET a = substr(a, 1, 1);"),
    ("", "UPDATE t SET a = lower(a);"),
    ("", "UPDATE t SET a = CAST(a AS VARCHAR);"),
    ("", "UPDATE t SET a = nullif(a, a);"),
    ("", "UPDATE t SET a = CASE WHEN id = 1 THEN a END;"),
    ("", REBUILT.format("", "SELECT t.id, t.a, t.b FROM t JOIN o ON o.t_id = t.id AND o.id = 3")),
    ("", REBUILT.format("", "SELECT max(id), max(a), max(b) FROM t")),
    ("", REBUILT.format("", "SELECT t.id, t.a, t.b FROM t CROSS JOIN (SELECT 1 FROM o WHERE v = '') AS e")),
    ("", REBUILT.format("", "SELECT id, CAST(a AS VARCHAR(1)), b FROM t")),
    ("", REBUILT.format("", "SELECT id, nullif(a, 'One'), b FROM t")),
]  # fmt: skip
INSTEAD = "CREATE TRIGGER g INSTEAD OF DELETE ON vv BEGIN DELETE FROM t WHERE id = OLD.id; END;"
LOSES_ON_SQLITE = [
    ("CREATE TRIGGER g AFTER UPDATE ON t BEGIN DELETE FROM o; END;", "UPDATE t SET a = a;"),
    (
        "CREATE VIEW vv AS SELECT * FROM t;" + INSTEAD,
        "DELETE FROM vv;",
    ),
    ("", "CREATE TABLE temp.k AS SELECT * FROM o; DROP TABLE o;"),
    ("", "DROP TABLE 't';"),
    ("", "DELETE FROM 't';"),
    ("ALTER TABLE t ADD \"my col\" TEXT DEFAULT 'x';", "ALTER TABLE t DROP COLUMN 'my col';"),
    ("", "PRAGMA writable_schema = ON; DELETE FROM sqlite_schema WHERE name = 't';"),
    ("", "REPLACE INTO t VALUES (1, 'z', 'z');"),
    ("", "INSERT OR REPLACE INTO t VALUES (1, 'z', 'z');"),
    ("", "INSERT OR REPLACE INTO t SELECT id, 'z', b FROM t;"),
    ("", REBUILT.format(", UNIQUE (b) ON CONFLICT IGNORE", "SELECT id, a, 'x' FROM t")),
    ("", REBUILT.format(", UNIQUE (b) ON CONFLICT REPLACE", "SELECT id, a, 'x' FROM t")),
    ("", REBUILT.format("", "SELECT id, CAST(a AS INTEGER), b FROM t")),
]  # fmt: skip
G = "CREATE FUNCTION g() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN DELETE FROM o; RETURN NEW; END';"
F = "CREATE FUNCTION f(text) RETURNS text IMMUTABLE LANGUAGE sql AS 'SELECT $1';"
W = "CREATE FUNCTION w() RETURNS void LANGUAGE sql AS 'DELETE FROM o';"
LOSES_ON_POSTGRESQL = [
    (W, "SELECT w();"),
    ("", "CREATE FUNCTION pg_temp.w() RETURNS void LANGUAGE sql AS 'TRUNCATE o'; SELECT pg_temp.w();"),
    (
        G + "CREATE TRIGGER g AFTER UPDATE ON t FOR EACH ROW EXECUTE FUNCTION g();",
        "UPDATE t SET a = a;",
    ),
    ("CREATE RULE r AS ON UPDATE TO t DO ALSO DELETE FROM o;", "UPDATE t SET a = a;"),
    ("CREATE VIEW vv AS SELECT * FROM o;", "DELETE FROM vv;"),
    ("CREATE VIEW vv AS SELECT * FROM o;", "UPDATE vv SET v = NULL;"),
    ("", "PREPARE p AS DELETE FROM o; EXECUTE p; DEALLOCATE p;"),
    ("", "EXPLAIN ANALYZE DELETE FROM o;"),
    ("", "SELECT * INTO TEMP k FROM o; DROP TABLE o;"),
    ("", 'DROP TABLE U&"o";'),
    ("CREATE SCHEMA zz; CREATE TABLE zz.q AS SELECT 1 AS id;", "SET search_path = zz; DROP TABLE q;"),
    ("", "MERGE INTO t USING (VALUES (1)) AS q (id) ON q.id = t.id WHEN MATCHED THEN UPDATE SET a = 'z';"),
    ("", "WITH d AS (UPDATE t SET a = 'z' RETURNING 1) SELECT count(*) FROM d;"),
    (
        F + "ALTER TABLE t ADD c TEXT GENERATED ALWAYS AS (f(a)) STORED;",
        "DROP FUNCTION f(text) CASCADE;",
    ),
]  # fmt: skip
KEEPS = [
    (
        "",
        "CREATE TEMP TABLE k AS SELECT * FROM t; DELETE FROM t; INSERT INTO t SELECT * FROM k; DROP TABLE k;",
    ),
    ("", "ALTER TABLE t RENAME TO s; ALTER TABLE s RENAME COLUMN a TO c;"),
    ("", "CREATE TABLE k AS SELECT * FROM o; DROP TABLE o;"),
    ("", "CREATE TABLE k AS SELECT id, v AS w, t_id FROM o; DELETE FROM o;"),
    ("", "ALTER TABLE t ADD c TEXT; UPDATE t SET c = a; ALTER TABLE t DROP COLUMN a;"),
    ("", REBUILT.format("", "SELECT id, a, b FROM t")),
    ("", "INSERT INTO o SELECT id + 10, id, b FROM t WHERE b IS NULL; CREATE VIEW s AS SELECT 1 AS a;"),
    ("CREATE TABLE s (id INTEGER, a TEXT);", "INSERT INTO t (id, a) VALUES (3, 'z'); DROP TABLE s;"),
    ("", "CREATE INDEX i ON t (a); UPDATE t SET a = a;"),
    ("", "ALTER TABLE t RENAME a TO c; ALTER TABLE t RENAME b TO a; ALTER TABLE t RENAME c TO b;"),
    ("ALTER TABLE t ADD c TEXT;", "ALTER TABLE t DROP COLUMN c;"),
]  # fmt: skip


def outcome(project: Project, made: str, rollback: str) -> str:
    """Return how the rollback of a migration ends that nobody has allowed to lose anything."""
    about = ("-d", str(project.database), "--sources", "sql")
    project.write("001_a", TABLES + made, "SELECT 1;")
    project.write("002_b", "-- depends: 001_a\nSELECT 1;", rollback)
    assert command("apply", *about, folder=project.folder).code == 0
    ran = command("rollback", *about, folder=project.folder)
    if ran.code:
        assert "this rollback would delete" in ran.error, (rollback, ran.error)
        assert project.query("SELECT count(a) FROM t") == [(2,)], rollback
        assert project.query("SELECT count(*) FROM o") == [(3,)], rollback
    if is_server(str(project.database)):
        project.run_sql("DROP SCHEMA public CASCADE; DROP SCHEMA IF EXISTS zz CASCADE; CREATE SCHEMA public;")
    else:
        for file in project.folder.glob("game.db*"):
            file.unlink()
    return "refused" if ran.code else "done"


@pytest.mark.slow
def test_what_is_lost_without_being_said_is_refused(project: Project) -> None:
    """By triggers, rules, functions, what keeps nothing, and what overwrites; not what is kept."""
    more = LOSES_ON_POSTGRESQL if is_server(str(project.database)) else LOSES_ON_SQLITE
    passed = [rollback for made, rollback in LOSES + more if outcome(project, made, rollback) == "done"]
    refused = [rollback for made, rollback in KEEPS if outcome(project, made, rollback) == "refused"]
    assert (passed, refused) == ([], [])


def test_what_comes_in_after_the_consent_is_not_lost_with_it(project: Project) -> None:
    """More rows than somebody has agreed to."""
    project.write("001_a", "CREATE TABLE t (id INTEGER); INSERT INTO t VALUES (1);", "DROP TABLE t;")
    location, asked = locate(str(project.database)), list[str]()
    assert project.yoyo("apply").returncode == 0

    def allow(lost: str, _last: str, *, may_ask: bool = True) -> None:
        asked.append(lost)
        if not may_ask:
            raise refusal(lost, ["say so"])
        if project.query("SELECT count(*) FROM t") == [(1,)]:
            project.run_sql("INSERT INTO t VALUES (2)")

    with pytest.raises(MigrationError, match="would delete 2 rows of t,"):
        roll_back(engine_for(location), [str(project.sql)], allow_loss=allow, say=str)
    assert project.query("SELECT id FROM t ORDER BY id") == [(1,), (2,)]
    roll_back(engine_for(location), [str(project.sql)], allow_loss=allow, say=str)
    assert asked == ["1 row of t", "2 rows of t", "2 rows of t"]


def test_outside_a_transaction_what_is_not_known_asks(project: Project) -> None:
    project.write("001_a", TABLES, "-- transactional: false\nSELECT abs(1); SELECT count(*) FROM t;")
    assert project.yoyo("apply").returncode == 0
    project.loses_rows = False
    assert "would delete whatever `SELECT abs(1)` deletes (not counted)" in project.refuses("rollback")


def test_what_was_agreed_to_is_not_asked_again(project: Project) -> None:
    """Under whichever name it is lost, and no more than was said at most."""
    project.write("001_a", TABLES, "SELECT 1;")
    rollback = "ALTER TABLE T RENAME TO s; ALTER TABLE s DROP COLUMN A; DELETE FROM o WHERE id = 1;"
    project.write("002_b", "-- depends: 001_a\nSELECT 1;", rollback)
    assert project.yoyo("apply").returncode == 0
    asked = list[tuple[str, bool]]()

    def allow(lost: str, _last: str, *, may_ask: bool = True) -> None:
        asked.append((lost, may_ask))

    roll_back(engine_for(locate(str(project.database))), [str(project.sql)], allow_loss=allow, say=str)
    assert (len(asked), project.query("SELECT count(*) FROM o")) == (1, [(2,)])
