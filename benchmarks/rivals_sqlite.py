"""What a programmer would take instead on SQLite, each as its documentation says.

Where a rival brings no tables of its own it gets ours, and our settings of SQLite.
"""

import json
import sqlite3
import uuid
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import diskcache
import peewee
import sqlalchemy as sa
from langgraph.store.sqlite import SqliteStore
from sqlalchemy import orm
from sqlalchemy.dialects.sqlite import insert

from benchmarks.arms_sqlite import migrated, now
from benchmarks.works import Entry

SETTINGS = {"journal_mode": "wal", "synchronous": "normal", "foreign_keys": 1, "secure_delete": 1}


class LangGraph:
    """LangGraph's store: each kind of pattern and each conversation is a namespace."""

    def __init__(self, store: Any, resources: ExitStack) -> None:
        self.store = store
        self.resources = resources

    def save_pattern(self, user: int, kind: str, key: str, value: Any) -> None:
        """Put, which replaces."""
        self.store.put((str(user), "patterns", kind), key, value)

    def get_pattern(self, user: int, kind: str, key: str) -> Any:
        """Get."""
        item = self.store.get((str(user), "patterns", kind), key)
        return None if item is None else item.value

    def save_context(self, user: int, key: str, value: Any, session: str) -> None:  # noqa: ARG002
        """Put under a new key: the store has no lists."""
        self.store.put((str(user), "context", key), uuid.uuid4().hex, value)

    def get_context(self, user: int, key: str, *, limit: int) -> list[Any]:
        """Search, which returns the last updated first."""
        return [item.value for item in self.store.search((str(user), "context", key), limit=limit)]

    def close(self) -> None:
        """Close the connection."""
        self.resources.close()


def langgraph(folder: Path) -> LangGraph:
    """Open the store as its documentation does."""
    resources = ExitStack()
    store = resources.enter_context(SqliteStore.from_conn_string(str(folder / "store.db")))
    # The default, and again after it was filled with a log.
    store.conn.execute("PRAGMA journal_mode = DELETE")
    store.setup()
    return LangGraph(store, resources)


def langgraph_wal(folder: Path) -> LangGraph:
    """Open the store on a connection with a write-ahead log."""
    resources = ExitStack()
    connection = sqlite3.connect(folder / "store.db", check_same_thread=False, isolation_level=None)
    resources.callback(connection.close)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    store = SqliteStore(connection)
    store.setup()
    return LangGraph(store, resources)


class _Base(orm.DeclarativeBase):
    pass


class _Pattern(_Base):
    __tablename__ = "user_patterns"

    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    user_id: orm.Mapped[int]
    pattern_type: orm.Mapped[str]
    pattern_key: orm.Mapped[str]
    pattern_value: orm.Mapped[Any] = orm.mapped_column(sa.JSON)
    confidence: orm.Mapped[float]
    created_at: orm.Mapped[str]
    updated_at: orm.Mapped[str]


class _Context(_Base):
    __tablename__ = "conversation_context"

    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    user_id: orm.Mapped[int]
    context_key: orm.Mapped[str]
    context_value: orm.Mapped[Any] = orm.mapped_column(sa.JSON)
    session_id: orm.Mapped[str | None]
    created_at: orm.Mapped[str]
    expires_at: orm.Mapped[str | None]


def _engine(path: Path) -> Any:
    """Return an engine, each connection of which has our settings."""
    engine = sa.create_engine(f"sqlite:///{path}")

    def configure(connection: sqlite3.Connection, _: object) -> None:
        for name, setting in SETTINGS.items():
            connection.execute(f"PRAGMA {name} = {setting}")

    sa.event.listen(engine, "connect", configure)
    return engine


class SQLAlchemyCore:
    """SQLAlchemy's expressions, compiled once and then found in its cache."""

    insert: Any = staticmethod(insert)
    now: Any = staticmethod(now)

    def __init__(self, engine: Any) -> None:
        self.engine = engine
        self.patterns: Any = _Pattern.__table__
        self.context: Any = _Context.__table__

    def save_pattern(self, user: int, kind: str, key: str, value: Any) -> None:
        """Upsert."""
        moment = self.now()
        new = self.insert(self.patterns).values(
            user_id=user,
            pattern_type=kind,
            pattern_key=key,
            pattern_value=value,
            confidence=1.0,
            created_at=moment,
            updated_at=moment,
        )
        upsert = new.on_conflict_do_update(
            index_elements=["user_id", "pattern_type", "pattern_key"],
            set_={
                name: getattr(new.excluded, name) for name in ("pattern_value", "confidence", "updated_at")
            },
        )
        with self.engine.begin() as connection:
            connection.execute(upsert)

    def get_pattern(self, user: int, kind: str, key: str) -> Any:
        """Read by key."""
        columns = self.patterns.c
        query = sa.select(columns.pattern_value).where(
            columns.user_id == user, columns.pattern_type == kind, columns.pattern_key == key
        )
        with self.engine.connect() as connection:
            return connection.execute(query).scalar()

    def save_context(self, user: int, key: str, value: Any, session: str) -> None:
        """Append."""
        new = self.insert(self.context).values(
            user_id=user, context_key=key, context_value=value, session_id=session, created_at=self.now()
        )
        with self.engine.begin() as connection:
            connection.execute(new)

    def get_context(self, user: int, key: str, *, limit: int) -> list[Any]:
        """Read the newest."""
        columns = self.context.c
        query = (
            sa.select(columns.context_value)
            .where(
                columns.user_id == user,
                columns.context_key == key,
                sa.or_(columns.expires_at.is_(None), columns.expires_at > self.now()),
            )
            .order_by(columns.created_at.desc(), columns.id.desc())
            .limit(limit)
        )
        with self.engine.connect() as connection:
            return list(connection.execute(query).scalars())

    def close(self) -> None:
        """Close the connections."""
        self.engine.dispose()


class SQLAlchemyORM:
    """SQLAlchemy's objects, a session for each call."""

    def __init__(self, engine: Any) -> None:
        self.engine = engine

    def save_pattern(self, user: int, kind: str, key: str, value: Any) -> None:
        """Find the object, change it or add one, and commit."""
        moment = now()
        with orm.Session(self.engine) as session:
            found = session.scalar(_pattern(user, kind, key))
            if found is None:
                session.add(
                    _Pattern(
                        user_id=user,
                        pattern_type=kind,
                        pattern_key=key,
                        pattern_value=value,
                        confidence=1.0,
                        created_at=moment,
                        updated_at=moment,
                    )
                )
            else:
                found.pattern_value, found.updated_at = value, moment
            session.commit()

    def get_pattern(self, user: int, kind: str, key: str) -> Any:
        """Find the object."""
        with orm.Session(self.engine) as session:
            found = session.scalar(_pattern(user, kind, key))
            return None if found is None else found.pattern_value

    def save_context(self, user: int, key: str, value: Any, session: str) -> None:
        """Add an object."""
        with orm.Session(self.engine) as opened:
            opened.add(
                _Context(
                    user_id=user, context_key=key, context_value=value, session_id=session, created_at=now()
                )
            )
            opened.commit()

    def get_context(self, user: int, key: str, *, limit: int) -> list[Any]:
        """Find the newest objects."""
        query = (
            sa.select(_Context)
            .where(
                _Context.user_id == user,
                _Context.context_key == key,
                sa.or_(_Context.expires_at.is_(None), _Context.expires_at > now()),
            )
            .order_by(_Context.created_at.desc(), _Context.id.desc())
            .limit(limit)
        )
        with orm.Session(self.engine) as session:
            return [found.context_value for found in session.scalars(query)]

    def close(self) -> None:
        """Close the connections."""
        self.engine.dispose()


def _pattern(user: int, kind: str, key: str) -> Any:
    return sa.select(_Pattern).where(
        _Pattern.user_id == user, _Pattern.pattern_type == kind, _Pattern.pattern_key == key
    )


class _JSON(peewee.TextField):
    def db_value(self, value: Any) -> str:
        """Return what is stored."""
        return json.dumps(value)

    def python_value(self, value: str) -> Any:
        """Return what was saved."""
        return json.loads(value)


class Peewee:
    """peewee's models."""

    def __init__(self, path: Path) -> None:
        self.database = peewee.SqliteDatabase(str(path), pragmas=SETTINGS)

        class Pattern(peewee.Model):
            user_id = peewee.IntegerField()
            pattern_type = peewee.TextField()
            pattern_key = peewee.TextField()
            pattern_value = _JSON()
            confidence = peewee.FloatField()
            created_at = peewee.TextField()
            updated_at = peewee.TextField()

            class Meta:
                database = self.database
                table_name = "user_patterns"

        class Context(peewee.Model):
            user_id = peewee.IntegerField()
            context_key = peewee.TextField()
            context_value = _JSON()
            session_id = peewee.TextField(null=True)
            created_at = peewee.TextField()
            expires_at = peewee.TextField(null=True)

            class Meta:
                database = self.database
                table_name = "conversation_context"

        self.pattern: Any = Pattern
        self.context: Any = Context
        self.database.connect()

    def save_pattern(self, user: int, kind: str, key: str, value: Any) -> None:
        """Upsert."""
        model, moment = self.pattern, now()
        model.insert(
            user_id=user,
            pattern_type=kind,
            pattern_key=key,
            pattern_value=value,
            confidence=1.0,
            created_at=moment,
            updated_at=moment,
        ).on_conflict(
            conflict_target=[model.user_id, model.pattern_type, model.pattern_key],
            preserve=[model.pattern_value, model.confidence, model.updated_at],
        ).execute()

    def get_pattern(self, user: int, kind: str, key: str) -> Any:
        """Find the object."""
        model = self.pattern
        found = model.get_or_none(
            (model.user_id == user) & (model.pattern_type == kind) & (model.pattern_key == key)
        )
        return None if found is None else found.pattern_value

    def save_context(self, user: int, key: str, value: Any, session: str) -> None:
        """Add an object."""
        self.context.create(
            user_id=user, context_key=key, context_value=value, session_id=session, created_at=now()
        )

    def get_context(self, user: int, key: str, *, limit: int) -> list[Any]:
        """Find the newest objects."""
        model = self.context
        query = (
            model.select()
            .where(
                (model.user_id == user)
                & (model.context_key == key)
                & (model.expires_at.is_null() | (model.expires_at > now()))
            )
            .order_by(model.created_at.desc(), model.id.desc())
            .limit(limit)
        )
        return [found.context_value for found in query]

    def close(self) -> None:
        """Close the connection."""
        self.database.close()


class DiskCache:
    """diskcache, told to keep everything: it has keys and counters, so a conversation is numbered."""

    def __init__(self, folder: Path) -> None:
        self.cache = diskcache.Cache(str(folder / "cache"), eviction_policy="none")

    def save_pattern(self, user: int, kind: str, key: str, value: Any) -> None:
        """Set, which replaces."""
        self.cache[user, kind, key] = value

    def get_pattern(self, user: int, kind: str, key: str) -> Any:
        """Get."""
        return self.cache.get((user, kind, key))

    def save_context(self, user: int, key: str, value: Any, session: str) -> None:  # noqa: ARG002
        """Set under the next number, in one transaction."""
        with self.cache.transact():
            self.cache[user, key, self.cache.incr((user, key))] = value

    def get_context(self, user: int, key: str, *, limit: int) -> list[Any]:
        """Get the last numbers."""
        last = self.cache.get((user, key), 0)
        return [self.cache[user, key, number] for number in range(last, max(0, last - limit), -1)]

    def close(self) -> None:
        """Close the connection."""
        self.cache.close()


RIVALS: dict[str, Entry[Path]] = {
    # It keeps times to the second.
    "LangGraph SqliteStore": Entry(langgraph, in_order=False, fill=langgraph_wal),
    "LangGraph on WAL": Entry(langgraph_wal, in_order=False),
    "SQLAlchemy Core": Entry(lambda folder: SQLAlchemyCore(_engine(migrated(folder)))),
    "SQLAlchemy ORM": Entry(lambda folder: SQLAlchemyORM(_engine(migrated(folder)))),
    "peewee": Entry(lambda folder: Peewee(migrated(folder))),
    "diskcache": Entry(DiskCache),
}
