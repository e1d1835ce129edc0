"""The storage's queries, as each engine is sent them."""

from pathlib import Path

import poker_therapist.storage
from poker_therapist.sqlfile import Placeholders, read_queries

STORAGE = Path(poker_therapist.storage.__file__).parent
QUERIES_FILE = STORAGE.with_name("queries.sql")
QUERIES = read_queries(Placeholders.SQLITE, QUERIES_FILE)
# Some of them PostgreSQL has in words of its own.
OWN_FILE = QUERIES_FILE.with_name("postgresql") / "queries.sql"
ON_POSTGRESQL = read_queries(Placeholders.POSTGRESQL, QUERIES_FILE, OWN_FILE)
