"""queries.sql: every query is used, is answered by an index, and is about one player."""

import json
import re
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from poker_therapist import PatternStorage
from poker_therapist.postgresql.pool import Lease
from poker_therapist.storage import get_pattern_storage
from tests.helpers.engines import fetch_all, postgresql_only, sqlite_only
from tests.helpers.players import TABLES
from tests.helpers.queries import ON_POSTGRESQL, QUERIES, QUERIES_FILE, STORAGE

# What the storage's own columns and a table's own keys may be looked up by.
SEARCH = re.compile(r"SEARCH \w+ USING (COVERING INDEX|INDEX|INTEGER PRIMARY KEY|PRIMARY KEY)\b")

# A player has some hundred patterns of a type; an index on updated_at would be written to by every save.
SORTED_IN_MEMORY = {"get_patterns_by_type", "recall_patterns", "list_sessions"}

# What is asked of each of the players' tables.
VERBS = ("export", "delete", "count", "users_of")

# Three hundred players with sixty rows of each kind; half of the context expires some day.
FILL = """
    CREATE TEMP TABLE numbers AS SELECT u.id AS player, n.id AS n FROM
        generate_series(1, 300) AS u (id), generate_series(1, 60) AS n (id);
    INSERT INTO user_patterns (user_id, pattern_type, pattern_key, pattern_value, confidence)
    SELECT player, 'type ' || n % 5, 'key ' || n, '1', 1 FROM numbers;
    INSERT INTO conversation_context (user_id, context_key, context_value, session_id, expires_at)
    SELECT player, 'key ' || n % 5, '1', 'session ' || n % 7,
        CASE WHEN n % 2 = 0 THEN now() + n * interval '1 minute' END FROM numbers;
    INSERT INTO user_insights (user_id, insight_type, insight_data, importance)
    SELECT player, 'type ' || n % 5, '1', n % 10 / 10.0 FROM numbers;
    INSERT INTO legacy_rows (migration_id, table_name, row_id, user_id, session_id)
    SELECT '003', 'conversation_context', n, player, 'session ' || n % 7 FROM numbers;
    ANALYZE;
"""

MANY_OF_ONE = """
    INSERT INTO conversation_context (user_id, context_key, context_value, expires_at)
    SELECT 1, 'key', '1', now() + n * interval '1 minute' FROM generate_series(1, 20000) AS n;
    ANALYZE;
"""


def test_every_query_of_the_file_is_found_by_its_name() -> None:
    names = re.findall(r"^-- name: (\w+)", QUERIES_FILE.read_text(), re.MULTILINE)

    assert {f"{verb}_{table}" for verb in VERBS for table in TABLES} <= set(names)
    assert sorted(QUERIES) == sorted(names)


@pytest.mark.parametrize("name", QUERIES)
def test_every_query_is_used_by_the_storage(name: str) -> None:
    of_a_table = {f"{verb}_{table}" for verb in VERBS for table in TABLES}
    assert any(f'"{name}"' in file.read_text() for file in STORAGE.glob("*.py")) or name in of_a_table


@sqlite_only
@pytest.mark.parametrize("name", QUERIES)
def test_no_query_reads_a_whole_table_or_sorts_on_sqlite(storage: PatternStorage, name: str) -> None:
    sql = QUERIES[name]
    plan = [row[3] for row in fetch_all(storage, f"EXPLAIN QUERY PLAN {sql}", [None] * sql.count("?"))]

    parts = ("LIST SUBQUERY", "MERGE (UNION ALL)", "LEFT", "RIGHT")  # of which none sorts
    others = [step for step in plan if not SEARCH.match(step) and not step.startswith(parts)]
    assert [step for step in plan if "rowid<" in step and "user_id=" not in step] == []
    assert [step for step in others if not (name in SORTED_IN_MEMORY and "TEMP B-TREE" in step)] == []
    assert plan or sql.startswith("INSERT")


PAGES = [name for name, sql in QUERIES.items() if re.search(r"\bid <=? \?", sql)]


@sqlite_only
@pytest.mark.parametrize("name", PAGES)
def test_a_page_begins_where_it_is_to_on_sqlite(storage: PatternStorage, name: str) -> None:
    """And not at the newest row, with all that is before it read and left out."""
    sql = QUERIES[name]
    plan = [row[3] for row in fetch_all(storage, f"EXPLAIN QUERY PLAN {sql}", [None] * sql.count("?"))]

    assert "rowid<?" in next(step for step in plan if step.startswith("SEARCH"))


@pytest.fixture(scope="module")
def full(module_database: str) -> Iterator[psycopg.Connection]:
    """A connection to a database in which an index is worth its while for every query."""
    with psycopg.connect(module_database, autocommit=True) as connection:
        connection.execute(FILL)
        yield connection


@postgresql_only
@pytest.mark.parametrize("name", QUERIES)
def test_postgresql_prefers_an_index_to_reading_a_whole_table(full: psycopg.Connection, name: str) -> None:
    """With the planner's own choice of everything else."""
    nodes = plan_of(full, ON_POSTGRESQL[name])

    assert [node["Node Type"] for node in nodes if node["Node Type"] == "Seq Scan"] == []


@postgresql_only
@pytest.mark.parametrize("name", QUERIES)
def test_postgresql_s_indexes_find_the_rows_of_every_query_in_their_order(
    full: psycopg.Connection, name: str
) -> None:
    nodes = plan_of(full, ON_POSTGRESQL[name], instead="off")

    reads = [node for node in nodes if "Relation Name" in node and node["Node Type"] != "ModifyTable"]
    assert {node["Node Type"] for node in reads} <= {"Index Scan", "Index Only Scan"}
    assert all("user_id" in node.get("Index Cond", "") for node in reads)
    sorts = [node["Node Type"] for node in nodes if node["Node Type"].endswith("Sort")]
    assert sorts == [] or name in SORTED_IN_MEMORY
    assert reads or QUERIES[name].startswith("INSERT")


@postgresql_only
@pytest.mark.parametrize("name", PAGES)
def test_a_page_begins_where_it_is_to_on_postgresql(full: psycopg.Connection, name: str) -> None:
    conditions = [node.get("Index Cond", "") for node in plan_of(full, ON_POSTGRESQL[name], instead="off")]

    assert re.search(r"\bid <=|ROW\(importance, id\) <", "".join(conditions))


def test_postgresql_purges_without_reading_all_that_the_one_player_has(migrated_postgresql_url: str) -> None:
    with get_pattern_storage(migrated_postgresql_url) as storage:
        database: Any = storage._database
        lease = Lease(database._pool)
        connection = lease.acquire()
        connection.execute(database.home.qualified(MANY_OF_ONE))
        purge = database.home.qualified(ON_POSTGRESQL["purge_expired"])
        nodes = [node["Node Type"] for node in plan_of(connection, purge, instead="off")]
        lease.release()

    assert [node for node in nodes if "Join" in node] == []
    assert "Nested Loop" in nodes


@postgresql_only
def test_postgresql_has_no_index_that_no_query_needs(full: psycopg.Connection) -> None:
    nodes = [node for sql in ON_POSTGRESQL.values() for node in plan_of(full, sql, instead="off")]
    found = full.execute("SELECT indexname FROM pg_indexes WHERE tablename = ANY(%s)", [list(TABLES)])

    unused = {name for (name,) in found} - {node.get("Index Name") for node in nodes}
    assert unused == set()


def plan_of(connection: psycopg.Connection, sql: str, instead: str = "on") -> list[dict[str, Any]]:
    """Return all steps of the plan that serves a query whatever its parameters are.

    With `instead` turned off, what is left of other ways to get at rows is what no index can do.
    """

    def steps(node: dict[str, Any]) -> list[dict[str, Any]]:
        return [node, *(step for inner in node.get("Plans", []) for step in steps(inner))]

    with connection.transaction(force_rollback=True):
        for other in ("seqscan", "sort", "incremental_sort", "bitmapscan"):
            connection.execute(f"SET LOCAL enable_{other} = {instead}".encode())
        connection.execute("SET LOCAL plan_cache_mode = force_generic_plan")
        connection.execute(f"PREPARE asked AS {sql}".encode())
        nothing = ", ".join(["NULL"] * len(set(re.findall(r"\$\d+", sql))))
        explain = f"EXPLAIN (FORMAT JSON) EXECUTE asked({nothing})"
        ((found,),) = connection.execute(explain.encode()).fetchall()
        connection.execute("DEALLOCATE asked")
    # The storage's own connections leave JSON as it is.
    return steps((json.loads(found) if isinstance(found, str) else found)[0]["Plan"])


@pytest.mark.parametrize("name", QUERIES)
def test_every_query_but_the_lists_of_players_is_about_one_player_whom_it_names_first(name: str) -> None:
    """So that a single shard answers it, and a block knows whose rows it is about."""
    one_player = re.search(r"WHERE\s+user_id = \$1\b|INSERT INTO \w+ \(\s*user_id,", ON_POSTGRESQL[name])

    assert (one_player is None) == (name.startswith("users_of_") or name == "next_player_with_expired")


@pytest.mark.parametrize(
    "name", [name for name, sql in QUERIES.items() if "LIMIT :limit" in sql and "DELETE" not in sql]
)
def test_newest_first_is_by_id(name: str) -> None:
    """No clock decides; what matters most comes first where it says so."""
    assert re.search(r"ORDER BY (importance DESC, )?id DESC\n", QUERIES[name])
