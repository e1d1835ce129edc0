"""Reading a PostgreSQL schema: what makes two of them different, and what does not."""

from collections.abc import Iterator

import psycopg
import pytest
from psycopg import sql
from psycopg.pq import TransactionStatus

from poker_therapist.migrations.catalog import Catalog, Column, ForeignKey, Index, Table, differences
from poker_therapist.postgresql.catalog import describe

HANDS = """
    CREATE TABLE players (id INT, team INT, CONSTRAINT players_pkey PRIMARY KEY (id));
    CREATE TABLE hands (
        id BIGINT GENERATED ALWAYS AS IDENTITY,
        number SERIAL,
        player INT CONSTRAINT hands_player REFERENCES players (id) ON DELETE CASCADE,
        note VARCHAR(9) COLLATE "C" DEFAULT 'none' NOT NULL,
        length INT GENERATED ALWAYS AS (length(note)) STORED,
        CONSTRAINT hands_pkey PRIMARY KEY (player, id),
        CONSTRAINT hands_note UNIQUE (note, player),
        CONSTRAINT numbered CHECK (number > 0)
    );
    CREATE UNIQUE INDEX big ON hands (lower(note) text_pattern_ops DESC, player) INCLUDE (id)
    WHERE number > 1;
    CREATE INDEX hashed ON hands USING hash (note COLLATE "POSIX");
    CREATE VIEW notes AS SELECT hands.note FROM hands JOIN players ON players.id = hands.player;
    CREATE FUNCTION nothing() RETURNS TRIGGER LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
    CREATE TRIGGER noted AFTER INSERT ON hands FOR EACH ROW EXECUTE FUNCTION nothing();
    CREATE TABLE _yoyo_version (version INT);
"""


KINDS = """
    CREATE TYPE mood AS ENUM ('calm', 'tilted');
    CREATE TYPE pair AS (a INT, b mood);
    CREATE TYPE stakes AS RANGE (subtype = INT);
    CREATE DOMAIN felt AS mood DEFAULT 'calm' CONSTRAINT known CHECK (VALUE <> 'tilted');
    CREATE FUNCTION same(a pair, b pair) RETURNS BOOLEAN LANGUAGE sql AS 'SELECT a = b';
    CREATE FUNCTION of(a citext) RETURNS pair LANGUAGE sql AS 'SELECT NULL::pair';
    CREATE FUNCTION newer(a pair) RETURNS mood BEGIN ATOMIC SELECT (a).b; END;
    CREATE FUNCTION add(a pair, b pair) RETURNS pair LANGUAGE sql AS 'SELECT a';
    CREATE AGGREGATE total (pair) (SFUNC = add, STYPE = pair);
    CREATE OPERATOR === (LEFTARG = pair, RIGHTARG = pair, FUNCTION = same);
    CREATE OPERATOR FAMILY kin USING btree;
    CREATE COLLATION plain (LOCALE = 'C');
    CREATE TEXT SEARCH DICTIONARY words (TEMPLATE = simple);
    CREATE TEXT SEARCH CONFIGURATION search (COPY = simple);
    ALTER TEXT SEARCH CONFIGURATION search ALTER MAPPING FOR asciiword WITH words;
    CREATE TABLE parts (a mood DEFAULT 'calm', b citext COLLATE plain) PARTITION BY LIST (a);
    CREATE TABLE part_1 PARTITION OF parts FOR VALUES IN ('calm');
    CREATE STATISTICS both_of (dependencies) ON a, b FROM parts;
    CREATE MATERIALIZED VIEW counts AS SELECT a, count(*) AS n FROM parts GROUP BY a;
    CREATE INDEX of_counts ON counts (a);
    CREATE RULE quiet AS ON DELETE TO part_1 WHERE old.a = 'calm' DO INSTEAD NOTHING;
    CREATE POLICY own ON part_1 USING (a IN (SELECT a FROM parts));
    CREATE SEQUENCE tickets OWNED BY hands.number;
    COMMENT ON COLUMN hands.id IS 'a'; COMMENT ON FUNCTION of IS 'b'; COMMENT ON INDEX of_counts IS 'c';
    GRANT SELECT (note) ON hands TO PUBLIC; REVOKE EXECUTE ON FUNCTION newer FROM PUBLIC;
"""


# Statements that make one kind of object alone, and the part of a catalog that says so.
ALONE = {
    "SELECT": "comment on schema public",
    "CREATE TYPE pair AS (a INT)": "type pair",
    "CREATE TYPE mood AS ENUM ('calm')": "type mood",
    "CREATE DOMAIN felt AS TEXT": "type felt",
    "CREATE FUNCTION one() RETURNS INT RETURN 1": "function one()",
    "CREATE TABLE a (b INT); GRANT SELECT (b) ON a TO PUBLIC": "grant to PUBLIC on column b of a",
    "CREATE TABLE a (b INT); COMMENT ON COLUMN a.b IS 'c'": "comment on column b of table a",
    "CREATE TABLE a (b INT); CREATE POLICY c ON a": "policy c on a",
    "CREATE TABLE a (b INT); CREATE STATISTICS c ON b, (b + 1) FROM a": "statistics object c",
    "CREATE TABLE a (b INT); CREATE RULE c AS ON DELETE TO a DO INSTEAD NOTHING": "rule c on a",
    "CREATE VIEW a AS SELECT 1 AS b; ALTER VIEW a ALTER b SET DEFAULT 2": "default value for a.b",
    "CREATE TEXT SEARCH CONFIGURATION a (COPY = simple)": "text search configuration a",
    "CREATE COLLATION a (LOCALE = 'C')": "collation a",
    "CREATE CAST (INT AS POINT) WITH INOUT": "cast (integer AS pg_catalog.point)",
    "CREATE PUBLICATION a": "publication a",
}


@pytest.fixture
def connection(postgresql_url: str) -> Iterator[psycopg.Connection]:
    """A connection to a database with HANDS in two schemas, of which neither is in the search path."""
    with psycopg.connect(postgresql_url, autocommit=True) as opened:
        for schema in ("ours", 'Their "own"'):
            name = sql.Identifier(schema)
            opened.execute(sql.SQL("CREATE SCHEMA {0}; SET search_path = {0}").format(name))
            opened.execute(HANDS.encode())
        opened.execute("RESET search_path")
        yield opened


def test_everything_is_described(connection: psycopg.Connection) -> None:
    found = describe(connection, "ours")

    assert found.tables["hands"] == Table(
        columns={
            "id": Column("bigint", False, None, "GENERATED ALWAYS AS IDENTITY"),
            "number": Column("integer", False, "nextval('hands_number_seq'::regclass)"),
            "player": Column("integer", False, None),
            "note": Column("character varying(9)", False, "'none'::character varying", 'COLLATE "C"'),
            "length": Column("integer", True, None, "GENERATED ALWAYS AS (length((note)::text)) STORED"),
        },
        primary_key=("player", "id"),
        unique_keys=frozenset({("note", "player")}),
        foreign_keys=frozenset({ForeignKey(("player",), "players", ("id",), "CASCADE")}),
        checks=frozenset({"number > 0"}),
        options=frozenset(),
        constraints={
            "hands_note": "UNIQUE (note, player)",
            "numbered": "CHECK (number > 0)",
            "hands_pkey": "PRIMARY KEY (player, id)",
            "hands_player": "FOREIGN KEY (player) REFERENCES players(id) ON DELETE CASCADE",
        },
    )
    assert found.indexes == {
        "big": Index(
            "hands",
            ('lower(note::text) COLLATE "C" text_pattern_ops DESC', "player"),
            unique=True,
            where="number > 1",
            extra="INCLUDE (id)",
        ),
        "hashed": Index("hands", ('note COLLATE "POSIX"',), unique=False, where=None, extra="USING hash"),
    }
    assert found.triggers["hands.noted"][1].endswith("ON hands FOR EACH ROW EXECUTE FUNCTION nothing()")
    assert found.views.keys() == {"notes"}
    assert found.tables.keys() == {"hands", "players"}


def test_the_schema_itself_makes_no_difference(connection: psycopg.Connection) -> None:
    """What the same SQL builds under another name is equal."""
    assert describe(connection, "ours") == describe(connection, 'Their "own"')
    assert describe(connection, "public") == Catalog()


def test_no_kind_of_object_has_the_name_of_its_schema_in_it(connection: psycopg.Connection) -> None:
    """An extension's schema is in the path of both, where its types are arguments."""
    connection.execute("CREATE EXTENSION IF NOT EXISTS citext SCHEMA public")
    for schema in ("ours", 'Their "own"'):
        name = sql.Identifier(schema)
        connection.execute(sql.SQL("SET search_path = {0}, public").format(name))
        connection.execute(KINDS.encode())
    first, second = (describe(connection, name, path=["public"]) for name in ("ours", 'Their "own"'))

    assert differences(first, second) == []
    assert first.parts == second.parts
    assert {
        "function same(pair,pair)",
        "function of(citext)",
        "statistics object both_of",
    } < first.parts.keys()
    assert not [part for part in first.parts.items() if "ours" in str(part)]


def test_a_kind_is_described_where_it_is_the_only_one(postgresql_url: str) -> None:
    """The queries about kinds of which there is none are left out."""
    missed = {}
    with psycopg.connect(postgresql_url, autocommit=True) as connection:
        for statements, name in ALONE.items():
            with connection.transaction(force_rollback=True):
                connection.execute(statements.encode())
                parts = describe(connection, "public", beyond=True).parts
                if name not in parts:
                    missed[name] = sorted(parts)

    assert missed == {}


def test_reading_changes_nothing(connection: psycopg.Connection) -> None:
    """Neither the search path, nor a transaction that is open, nor that there is none."""
    connection.autocommit = False
    connection.execute("SET search_path = ours")
    connection.execute("CREATE TABLE bets ()")

    assert "bets" in describe(connection, "ours").tables
    assert connection.execute("SHOW search_path").fetchone() == ("ours",)

    connection.rollback()
    describe(connection, "ours")
    assert connection.info.transaction_status == TransactionStatus.IDLE


CHANGES = {
    "ALTER TABLE hands RENAME CONSTRAINT hands_note TO hands_key": [
        ("constraint hands_key of hands", None, "UNIQUE (note, player)"),
        ("constraint hands_note of hands", "UNIQUE (note, player)", None),
    ],
    "ALTER TABLE hands DROP CONSTRAINT numbered, ADD CONSTRAINT numbered CHECK (number > 0) NOT VALID": [
        ("constraint numbered of hands", "CHECK (number > 0)", "CHECK (number > 0) NOT VALID")
    ],
    "UPDATE pg_index SET indisvalid = FALSE WHERE indexrelid = 'hashed'::REGCLASS": [
        (
            "index hashed",
            'on hands (note COLLATE "POSIX") USING hash',
            'on hands (note COLLATE "POSIX") USING hash INVALID',
        )
    ],
    "ALTER TABLE hands ALTER id SET GENERATED BY DEFAULT": [
        (
            "column hands.id",
            "bigint NOT NULL GENERATED ALWAYS AS IDENTITY",
            "bigint NOT NULL GENERATED BY DEFAULT AS IDENTITY",
        )
    ],
    "ALTER TABLE players ALTER team SET NOT NULL": [
        ("column players.team", "integer", "integer NOT NULL"),
    ],
    "ALTER TABLE players SET (fillfactor = 70)": [("table players", "plain", "fillfactor=70")],
    "ALTER TABLE hands DISABLE TRIGGER noted": [
        (
            "trigger hands.noted",
            "CREATE TRIGGER noted AFTER INSERT ON hands FOR EACH ROW EXECUTE FUNCTION nothing()",
            "CREATE TRIGGER noted AFTER INSERT ON hands FOR EACH ROW EXECUTE FUNCTION nothing() DISABLED",
        )
    ],
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_difference_is_named(change: str, connection: psycopg.Connection) -> None:
    before = describe(connection, "ours")
    connection.execute("SET search_path = ours")
    connection.execute(change.encode())

    found = differences(before, describe(connection, "ours"))
    assert [(each.about, each.expected, each.actual) for each in found] == CHANGES[change]
