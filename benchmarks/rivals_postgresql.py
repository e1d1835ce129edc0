"""What a programmer would take instead on PostgreSQL, each as its documentation says."""

from contextlib import ExitStack
from datetime import UTC, datetime
from functools import partial

import sqlalchemy as sa
from langgraph.store.postgres import PostgresStore
from sqlalchemy.dialects.postgresql import insert

from benchmarks import rivals_sqlite
from benchmarks.works import Entry


def langgraph(url: str) -> rivals_sqlite.LangGraph:
    """Open LangGraph's store as its documentation does."""
    resources = ExitStack()
    store = resources.enter_context(PostgresStore.from_conn_string(url))
    store.setup()
    return rivals_sqlite.LangGraph(store, resources)


_METADATA = sa.MetaData()
_TIME = sa.DateTime(timezone=True)
_PATTERNS = sa.Table(
    "user_patterns",
    _METADATA,
    sa.Column("id", sa.BigInteger, sa.Identity(always=True)),
    sa.Column("user_id", sa.BigInteger),
    *(sa.Column(name, sa.Text) for name in ("pattern_type", "pattern_key")),
    sa.Column("pattern_value", sa.JSON),
    sa.Column("confidence", sa.Double),
    *(sa.Column(name, _TIME) for name in ("created_at", "updated_at")),
)
_CONTEXT = sa.Table(
    "conversation_context",
    _METADATA,
    sa.Column("id", sa.BigInteger, sa.Identity(always=True)),
    sa.Column("user_id", sa.BigInteger),
    sa.Column("context_key", sa.Text),
    sa.Column("context_value", sa.JSON),
    sa.Column("session_id", sa.Text),
    *(sa.Column(name, _TIME) for name in ("created_at", "expires_at")),
)


class SQLAlchemyCore(rivals_sqlite.SQLAlchemyCore):
    """SQLAlchemy's expressions, over psycopg."""

    insert = staticmethod(insert)
    now = staticmethod(partial(datetime.now, UTC))  # its type of a time takes no text

    def __init__(self, url: str) -> None:
        super().__init__(sa.create_engine(url.replace("postgresql://", "postgresql+psycopg://")))
        self.patterns = _PATTERNS
        self.context = _CONTEXT


RIVALS: dict[str, Entry[str]] = {
    "LangGraph PostgresStore": Entry(langgraph),
    "SQLAlchemy Core": Entry(SQLAlchemyCore),
}
