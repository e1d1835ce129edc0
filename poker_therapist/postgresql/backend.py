"""The PostgreSQL half of the atomic backend: one connection, an advisory lock that is polled."""

import re
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from secrets import SystemRandom
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote, urlencode

import psycopg
from psycopg import pq
from yoyo import default_migration_table
from yoyo.backends.core.postgresql import PostgresqlPsycopgBackend

from poker_therapist.compat import override
from poker_therapist.errors import (
    DatabaseBusy,
    DriftUnknown,
    MigrationFailed,
    PokerTherapistError,
    SchemaMissing,
    counted,
    escaped,
)
from poker_therapist.location import PostgreSQLLocation, command_about, locate
from poker_therapist.migrations.atomic import AtomicBackend
from poker_therapist.migrations.bookkeeping import BOOKKEEPING_SQL
from poker_therapist.migrations.catalog import Catalog
from poker_therapist.migrations.files import OUTSIDE_TRANSACTION, SQLMigration, Statement
from poker_therapist.postgresql.connect import (
    WatchedConnection,
    configure,
    connect,
    detailed,
    is_idle,
    is_lost,
    reason_of,
    translate_error,
)
from poker_therapist.postgresql.expected import describe_live, expected_schema
from poker_therapist.postgresql.home import (
    SAFE_PATH,
    TABLE_NAMES,
    Home,
    for_migrations,
    quoted,
    require_no_shadows,
    set_path,
)
from poker_therapist.postgresql.split import COPIES_ROWS, NO_ROWS, split
from poker_therapist.sqlfile import Placeholders, read_queries

if TYPE_CHECKING:
    from poker_therapist.postgresql.waiting import LockWatch

_QUERIES = read_queries(Placeholders.POSTGRESQL, BOOKKEEPING_SQL, Path(__file__).with_suffix(".sql"))

# How long a migration may wait for a table: all later sessions queue behind it.
TABLE_TIMEOUT = "5s"
# What is worth another try: a lock that was waited for too long, or by two for each other.
_LOCKED = ("55P03", "40P01")
# So long a statement that no limit ends may wait before it is told for whom.
_SECONDS_UNTOLD = 5.0
_INDEXES = re.compile(
    r"(?:CREATE|REINDEX|ALTER)\b(?=.*\b(?:INDEX|CONCURRENTLY)\b)", re.IGNORECASE | re.DOTALL
)
_Result = TypeVar("_Result")


class AtomicPostgreSQLBackend(AtomicBackend, PostgresqlPsycopgBackend):
    """`postgresql+atomic://`: what `postgresql+psycopg://` does, safely."""

    split = staticmethod(split)

    def __init__(self, uri: Any, migration_table: str = default_migration_table) -> None:
        """Take yoyo's parsed URL, or a `PostgreSQLLocation`; connect only when something is asked."""
        self.location = for_migrations(uri if isinstance(uri, PostgreSQLLocation) else _locate(uri))
        self.migration_table = migration_table
        self.DatabaseError = psycopg.DatabaseError
        self._opened: psycopg.Connection[Any] | None = None
        self.home = Home(None)
        self._queries: dict[str, str] = {}
        self._role = ""

    @property
    def connection(self) -> psycopg.Connection[Any]:
        """The one connection, opened when it is first needed."""
        if self._opened is None:
            with self.translating_errors():
                opened = connect(self.location, WatchedConnection)
            weakref.finalize(self, opened.close)
            # What was prepared for a table may not fit it after the next migration.
            opened.prepare_threshold = None
            self.home = opened.home or Home(None)
            if self.home.schema is None:  # where every table would seem to be missing
                opened.close()
                raise SchemaMissing(
                    f"the schema in search_path does not exist in {self.name}, or this role may not use it: "
                    "create it, or grant USAGE on it"
                )
            self._queries = {name: self.home.qualified(query) for name, query in _QUERIES.items()}
            self._opened = opened
            if self.location.on_connect is not None:
                self._role = self.query("role_of")[0][0]
        return self._opened

    def __exit__(self, *error: object) -> None:
        """Close the connection, and let go of the lock with it."""
        if self._opened is not None:
            self._opened.close()

    def exists(self) -> bool:
        """Return that there is a database; where there is none, connecting fails."""
        return self.connection is not None

    def create_database(self) -> None:
        """Do nothing: the administrator of the server creates its databases."""

    @contextmanager
    def migration_lock(self) -> Iterator[None]:
        """Hold an advisory lock, so that no two migrate at once, also where no transaction may.

        It is asked for again and again. A session that waited for it inside a statement would hold a
        snapshot, for which CREATE INDEX CONCURRENTLY of the lock's holder would wait: a deadlock.
        """
        ((key,),) = self.query("lock_key_of", (self.schema, self.migration_table))
        deadline, pause = time.monotonic() + self.location.timeout, 0.005
        while not self.query("try_lock", (key,))[0][0]:
            if time.monotonic() > deadline:
                waited = counted(self.location.timeout, "second")
                raise DatabaseBusy(
                    f"another session is still migrating {self.name} after {waited}{self._holder(key)}: "
                    f"wait until it has finished, then check `{command_about(self.location, 'status')}`"
                )
            if pause < 0.25 <= pause * 1.5:  # after half a second
                waits = f"waiting for up to {counted(self.location.timeout, 'second')}"
                self.tell_operator(f"another session is migrating{self._holder(key)}: {waits}")
            time.sleep(pause)
            pause = min(pause * 1.5, 0.25)
        try:
            self.query("set_lock_timeout", (TABLE_TIMEOUT,))
            yield
        finally:
            self.rollback()  # what a statement of its own has begun
            if not is_lost(self.connection):
                # What a migration has set, prepared, locked or made for its session ends, like this lock.
                self.connection.execute("DISCARD ALL")
                configure(self.connection, self.location)
            if self.location.on_connect is not None:  # what that has set is gone, too
                self.__exit__()
                self._opened = None

    @override
    def apply_one(self, migration: SQLMigration, force: bool = False, mark: bool = True) -> None:
        apply = super().apply_one
        self._patiently(lambda: apply(migration, force, mark), is_whole=migration.use_transactions)

    @override
    def rollback_one(self, migration: SQLMigration, force: bool = False) -> None:
        roll_back, is_whole = super().rollback_one, migration.is_transactional("rollback")
        self._patiently(lambda: roll_back(migration, force), is_whole=is_whole)

    def _patiently(self, attempt: Callable[[], _Result], *, is_whole: bool) -> _Result:
        """Try again what a lock has ended, after pauses that grow, until the location's timeout is over.

        Other sessions queue behind a statement that waits for a table: they continue in the pauses.
        """
        deadline, pause = 0.0, 0.1
        watch: LockWatch | None = None
        with ExitStack() as stack:
            while is_whole:
                try:
                    return attempt()
                except PokerTherapistError as error:
                    cause = error.__cause__
                    if not (isinstance(cause, psycopg.Error) and cause.sqlstate in _LOCKED):
                        raise
                    if self._opened is not None and not is_idle(self._opened):  # a transaction of its own
                        raise
                    if watch and time.monotonic() > deadline:
                        if watch.found:
                            error.args = (f"{error}\nIt waited for {watch.found}",)
                        raise
                if watch is None:
                    deadline = time.monotonic() + self.location.timeout
                    watch = stack.enter_context(self._watch())
                time.sleep(SystemRandom().uniform(pause / 2, pause))
                pause = min(pause * 2, 5.0)
        return attempt()

    def _watch(self) -> "LockWatch":
        from poker_therapist.postgresql.waiting import LockWatch

        def pid() -> int | None:
            opened = self._opened
            return None if opened is None or is_lost(opened) else opened.pgconn.backend_pid

        return LockWatch(self.location, pid, self.tell_operator)

    def is_being_changed(self) -> bool:
        """Return whether a migration is running."""
        ((key,),) = self.query("lock_key_of", (self.schema, self.migration_table))
        return bool(self.query("holders", (key,)))

    def _holder(self, key: int) -> str:
        """Return the holder of a lock, in parentheses; empty if it is not known."""
        return "".join(f" ({escaped(holder)})" for (holder,) in self.query("holders", (key,)))

    def _reset_session(self) -> None:
        """Reset, in its transaction, what a migration has set: a role, a search path, timeouts."""
        self.connection.execute("RESET SESSION AUTHORIZATION; RESET ROLE; RESET ALL")
        configure(self.connection, self.location)
        self._take_role()

    def _take_role(self) -> None:
        """Take the role again that the app's on_connect has taken."""
        if self._role:
            self.query("set_role", (self._role,))

    def begin(self) -> None:
        """Begin a transaction."""
        self.connection.execute("BEGIN")
        self._in_transaction = True

    def commit(self) -> None:
        """Commit the transaction."""
        self._in_transaction = False
        self.connection.execute("COMMIT")

    def rollback(self) -> None:
        """Roll the transaction back; the server does so if the connection is lost."""
        self._in_transaction = False
        if not is_lost(self.connection) and (
            self.connection.pgconn.transaction_status != pq.TransactionStatus.IDLE
        ):
            self.connection.execute("ROLLBACK")

    def list_tables(self, **_unused: Any) -> list[str]:
        """Return the names of all tables, as yoyo asks for them."""
        return [name for (name,) in self.query("all_tables", (self.schema,))]

    @override
    def has_table(self, name: str) -> bool:
        return self.query("is_table", (quoted(self.schema, name),)) == [(True,)]

    def quote_identifier(self, name: str) -> str:
        """Return a name as a statement has it: that of a column, or of one of our tables with its schema."""
        tables = (*TABLE_NAMES, self.migration_table, self.log_table, self.version_table, self.lock_table)
        return quoted(self.schema, name) if name in tables else quoted(name)

    @contextmanager
    def migration_names(self) -> Iterator[None]:
        """Let statements of a block find what a migration would find."""
        self.connection.execute(set_path(self.home.path).encode())
        try:
            yield
        finally:
            # A transaction that has failed undoes the setting itself.
            if not is_lost(self.connection) and (
                self.connection.pgconn.transaction_status != pq.TransactionStatus.INERROR
            ):
                self.connection.execute(set_path(SAFE_PATH).encode())

    @override
    def query(self, name: str, values: Sequence[Any] = ()) -> list[Any]:
        cursor = psycopg.RawCursor(self.connection)
        try:
            cursor.execute(self._queries[name], values)
        except psycopg.errors.InsufficientPrivilege as error:
            if name != "kept_texts" or self._in_transaction:
                raise
            self.unreadable = (
                f"edited files and interrupted migrations cannot be detected ({reason_of(error)}): "
                "grant this role SELECT on _migration_text"
            )
            return []
        return cursor.fetchall() if cursor.description else []

    @override
    def run(self, migration: SQLMigration, statement: Statement, direction: str) -> None:
        is_alone = not migration.is_transactional(direction)
        self._patiently(lambda: self._run_once(migration, statement, direction), is_whole=is_alone)

    def hold(self, tables: Sequence[str]) -> None:
        """Lock tables against writes of others until the transaction ends, where this role may."""
        for table in tables:
            if self.query("may_write", (table.removeprefix("ONLY "),)) == [(True,)]:
                self.connection.execute(f"LOCK TABLE {table} IN SHARE ROW EXCLUSIVE MODE".encode())

    def _run_once(self, migration: SQLMigration, statement: Statement, direction: str) -> None:
        if COPIES_ROWS.match(statement.text):
            raise MigrationFailed(
                f"{migration.place(direction)}:{statement.line}: {NO_ROWS}\n    {statement}",
                migration_id=migration.id,
                file=migration.place(direction),
                line=statement.line,
            )
        try:
            self._execute(statement.text)
        except psycopg.Error as error:
            position = int(error.diag.statement_position or 1) - 1
            line = statement.line + statement.text.count("\n", 0, position)
            in_words = error.sqlstate is None or error.sqlstate[:2] in ("40", "53", "55", "57", "25")
            reason = str(self.translate_error(error)) if in_words else detailed(error)
            is_whole = migration.is_transactional(direction)
            if hint := _hint(error, statement.text[position:], is_whole=is_whole):
                reason = f"{reason_of(error)}: {hint}"
            raise MigrationFailed(
                f"{migration.place(direction)}:{line}: {reason}\n    {statement}"
                + (f"\nAll changes of {migration.id} were undone." if is_whole else ""),
                migration_id=migration.id,
                file=migration.place(direction),
                line=line,
            ) from error

    def _execute(self, text: str) -> None:
        building: Any = nullcontext("")
        watch: Any = nullcontext()
        if _INDEXES.match(text):
            from poker_therapist.postgresql import concurrently

            line = concurrently.on_one_line(text)
            building = concurrently.building(self, line, TABLE_TIMEOUT)
            watch = self._watch_later() if concurrently.ANY.search(line) else watch
        with watch, building as instead:
            if (cursor := self.connection.execute((instead or text).encode())).description:
                self.show_rows(cursor)

    @contextmanager
    def _watch_later(self) -> Iterator[None]:
        """Report, after some seconds, which session blocks a statement without a time limit."""
        with ExitStack() as stack:
            timer = threading.Timer(_SECONDS_UNTOLD, lambda: stack.enter_context(self._watch()))
            timer.daemon = True
            timer.start()
            try:
                yield
            finally:
                timer.cancel()
                timer.join()

    @override
    def translate_error(self, error: Exception) -> PokerTherapistError | None:
        return translate_error(error, self.location) if isinstance(error, psycopg.Error) else None

    @override
    def _run_unprotected(self, migration: SQLMigration, statements: list[Statement], direction: str) -> None:
        self._enter(statements)
        super()._run_unprotected(migration, statements, direction)
        self._reset_session()

    def _enter(self, statements: Iterable[Statement], local: str = "") -> None:
        """Give a migration its search path, unless others have made something for it to fall into."""
        text = " ".join(statement.text for statement in statements)
        require_no_shadows(self.connection, self.location, self.home.path, text)
        self.connection.execute(set_path(self.home.path, local).encode())

    def _record(self, migration: SQLMigration, mark: bool = True, operation: str = "apply") -> None:
        self._reset_session()  # so that it is recorded where the others are
        super()._record(migration, mark, operation)

    def _unrecord(self, migration: SQLMigration, operation: str = "rollback") -> None:
        self._reset_session()
        super()._unrecord(migration, operation)

    @contextmanager
    def checked(self, migration: SQLMigration, direction: str) -> Iterator[None]:
        """Refuse what only the commit would refuse, so that the message names the migration."""
        self._enter(migration.statements(direction), "LOCAL ")
        yield
        try:
            self.connection.execute("SET CONSTRAINTS ALL IMMEDIATE")
        except psycopg.Error as error:
            raise migration.failure(direction, f"{detailed(error)}: correct the migration") from error
        self.connection.execute(set_path(SAFE_PATH, "LOCAL ").encode())

    @override
    def describe(self, expected: Catalog) -> Catalog:
        # The server leaves out the schemas' names where they are on the path; so the operators there count.
        require_no_shadows(self.connection, self.location, self.home.path, "")
        return describe_live(self.connection, self.schema, expected)

    @override
    def present(self) -> dict[str, str]:
        # Not in the schema that a migration may have put first.
        return dict(self.query("present", (self.schema,)))

    def build(self, migrations: Iterable[SQLMigration]) -> Catalog:
        """Return the schema that migrations build; it is invisible to others and rolled back."""
        # What distributes tables changes nothing that is compared, and would distribute those built here.
        spreads = self.home.is_distributed
        built = [one for one in migrations if not (spreads and "create_distributed_table" in one.apply_sql)]
        if self._in_transaction:
            with AtomicPostgreSQLBackend(self.location, self.migration_table) as other:
                # What this session has locked is not to be had before it ends.
                other.query("set_lock_timeout", ("250ms",))
                return other.build(built)
        try:
            return expected_schema(self.connection, self.location, self.schema, built)
        except (psycopg.errors.ReadOnlySqlTransaction, psycopg.errors.InsufficientPrivilege) as error:
            raise DriftUnknown(
                f"drift cannot be checked, because no schema can be created here ({reason_of(error)}): "
                "run this on the primary, as a role that may create a schema"
            ) from error

    @property
    def schema(self) -> str:
        """Where the tables are."""
        return str(self.connection and self.home.schema)


def _hint(error: psycopg.Error, there: str, *, is_whole: bool) -> str:
    """Return what to do about an error that many run into; empty if nothing is known of it.

    Args:
        error: the server's error.
        there: the statement from where the server stopped.
        is_whole: whether a transaction holds all of the migration.
    """
    if error.sqlstate == "25001" and is_whole:
        return OUTSIDE_TRANSACTION
    if error.sqlstate == "55P04":
        return "a transaction cannot use an enum value that it has added: use it in the next migration"
    if error.sqlstate == "42601" and there.startswith("\\"):
        return f"{there.split(maxsplit=1)[0]} is a command of psql, not SQL: remove it"
    return ""


def _locate(uri: Any) -> PostgreSQLLocation:
    """Return the place of yoyo's parsed URL."""
    location = locate(url_of(uri))
    assert isinstance(location, PostgreSQLLocation)  # noqa: S101  # for the type
    return location


def url_of(uri: Any) -> str:
    """Return the URL that yoyo has parsed; its own way back gives an empty password where there is none."""
    user = "" if uri.username is None else quote(uri.username, safe="", errors="surrogateescape")
    password = "" if uri.password is None else f":{quote(uri.password, safe='', errors='surrogateescape')}"
    host = f"[{uri.hostname}]" if ":" in (uri.hostname or "") else uri.hostname or ""
    port = f":{uri.port}" if uri.port else ""
    at = "@" if user or password else ""
    query = f"?{urlencode(uri.args, quote_via=quote, errors='surrogateescape')}" if uri.args else ""
    return f"postgresql://{user}{password}{at}{host}{port}/{uri.database or ''}{query}"
