"""Backups of a PostgreSQL database: pg_dump makes them, pg_restore reads them, one transaction restores them.

A backup holds what the migrations have made, with its rows, and the record of the migrations; nothing else.
The server's database is shared as a file is not: the app's own tables may stand in the same schema, with rows
that came since. To restore what Rex remembers must not take them back, and a role of ours may not even be
allowed to read them. (The backup of an SQLite file is the whole file, as there is no smaller piece of it.)

What the migrations have made is read in their own texts, as the database has kept them: a backup can be made
on a standby, where nothing can be tried out. They make tables with indexes and constraints, views and
sequences; `test_everything_that_the_migrations_make_is_in_a_backup` finds what they make beyond that.
"""

import logging
import os
import re
import time
from collections.abc import Collection, Sequence
from contextlib import suppress
from itertools import groupby
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from poker_therapist.errors import (
    DatabaseBusy,
    DatabaseFull,
    InvalidInput,
    PokerTherapistError,
    SchemaMissing,
    StorageError,
)
from poker_therapist.location import PostgreSQLLocation, time_for_names
from poker_therapist.postgresql.backend import AtomicPostgreSQLBackend
from poker_therapist.postgresql.connect import reason_of, translate_error
from poker_therapist.postgresql.dump_file import TEXTS, Dump, made_by, read_dump, read_through
from poker_therapist.postgresql.programs import ProgramFailed, led_to, require, running
from poker_therapist.sqlfile import Placeholders, read_queries

logger = logging.getLogger("poker_therapist.migrations")

_QUERIES = read_queries(Placeholders.POSTGRESQL, Path(__file__).with_suffix(".sql"))

# What a script sets first and we have set ourselves, or older servers do not know.
_LIMITS = re.compile(rb"^SET (?:lock|transaction)_timeout = 0;$", re.MULTILINE)

# Whose the tables were and where they lay, if this server has no such role or tablespace.
_BELONGING_TO_NOBODY = ("--no-owner", "--no-privileges", "--no-tablespaces")


def save_backup(location: PostgreSQLLocation, output: Path | None, sources: Sequence[str]) -> Path:
    """Dump what the migrations have made to a file, as of one moment, while others use it.

    No migration runs meanwhile. The file is read through before it gets its name, and is its owner's alone.

    Args:
        location: the database.
        output: where to; in the working folder and named by database and time unless given.

    Returns:
        The file. It is never deleted by us.

    Raises:
        InvalidInput: there is a file at `output` already.
        SchemaMissing: no migration was ever applied, so there is nothing to dump.
        DatabaseBusy: somebody is migrating, or keeps a table locked.
        DatabaseFull: there is no room; nothing is left of it.
        StorageError: pg_dump or pg_restore is missing or too old, or the file cannot be written.
    """
    if output is not None and output.exists():
        raise InvalidInput(f"{output} is there already: choose another name")
    require("pg_dump", "pg_restore")
    with AtomicPostgreSQLBackend(location) as backend, backend.translating_errors(), backend.migration_lock():
        relations = _relations(backend, sources)
        if not relations:
            raise SchemaMissing(
                f"{location.name} holds nothing of Poker Therapist's to back up: correct the name or the "
                "schema, or bring it up to date with `yoyo -c yoyo.postgresql.ini apply`"
            )
        return _dump(backend, relations, output or _named_by_time(backend))


def restore(location: PostgreSQLLocation, file: Path, sources: Sequence[str]) -> Path | None:
    """Put a dump in the place of what the migrations have made, while others are connected.

    One transaction drops what is there and makes what the dump holds: nobody ever sees a part of it, and if
    it fails, or this process dies, all is as it was. Readers wait for its end. What others write while the
    backup is made is replaced too, and is not in that backup: stop writers first.

    Owners and rights are put back too; where the server has not the roles, the tables belong to whoever
    restores, with a warning. Tables that Citus had distributed come back as plain ones: the migration that
    distributes them is pending again, with a warning.

    Args:
        location: the database.
        file: what `save_backup` has made.

    Returns:
        The backup, in the working folder, that was made of what was replaced; None if nothing was there.

    Raises:
        DatabaseNotFound: there is no such file, or no such database.
        DatabaseUnreadable: the file is no dump or damaged, or is none of ours.
        SchemaTooNew: it was made by a later version of the code.
        InvalidInput: it is of another schema.
        DatabaseBusy: somebody is migrating, or keeps a table locked.
        StorageError: pg_dump or pg_restore is missing or too old, or something else needs what is there, such
            as a view of the app's.
    """
    require("pg_dump", "pg_restore")
    with AtomicPostgreSQLBackend(location) as backend, backend.translating_errors():
        found = read_dump(file, backend, sources)
        with backend.migration_lock():
            schema = _schema(backend)
            if schema != found.schema:
                raise InvalidInput(
                    f"{file} is of the schema {found.schema}, not of {schema}: "
                    f"add schema={found.schema} to the URL of the database"
                )
            relations = _relations(backend, sources)
            replaced = (
                _dump(backend, relations, _named_by_time(backend, "before-restore.")) if relations else None
            )
            with backend.one_transaction():
                try:
                    _replace(backend, relations, found, sources)
                except BaseException as error:
                    if replaced:  # by nothing, after all
                        replaced.unlink(missing_ok=True)
                    if isinstance(error, psycopg.Error | ProgramFailed):
                        raise _not_restored(error, found.file, location) from error
                    raise
    return replaced


def _schema(backend: AtomicPostgreSQLBackend) -> str:
    schema: str | None = _query(backend, "schema_in_use")[0][0]
    if schema is None:
        raise SchemaMissing(f"{backend.name} lacks the schema that search_path names: create it")
    return schema


def _relations(backend: AtomicPostgreSQLBackend, sources: Sequence[str]) -> list[tuple[str, str]]:
    """Return the name and kind of everything in the schema in use that the migrations have made."""
    kept = {name: text.apply_sql for name, text in backend.records().items()}
    names = made_by(backend, backend.applied(), kept, sources)
    return _query(backend, "relations", (sorted(names),))


def _named_by_time(backend: AtomicPostgreSQLBackend, before: str = "") -> Path:
    """Return a name in the working folder: where the server's own files are, nobody can tell."""
    database = re.sub(r"[^\w.-]", "_", backend.connection.info.dbname)
    return Path.cwd() / f"{database}.{time_for_names()}.{before}backup"


def _dump(backend: AtomicPostgreSQLBackend, relations: Collection[tuple[str, str]], target: Path) -> Path:
    """Write a dump that has its name only when it is whole; nothing is left of one that fails."""
    schema = _schema(backend)
    arguments, environment = led_to(backend.connection)
    unfinished = target.with_name(f"{target.name}.part")
    try:
        unfinished.unlink(missing_ok=True)  # of a backup that was killed
        # It holds what is known of all players: nobody else may read it.
        os.close(os.open(unfinished, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        with running(
            "pg_dump",
            "--format=custom",
            "--encoding=UTF8",
            "--no-password",
            f"--lock-wait-timeout={backend.location.timeout * 1000:.0f}",
            f"--file={unfinished}",
            *(f"--table={_exactly(schema)}.{_exactly(name)}" for name, _ in relations),
            *arguments,
            environment=environment,
        ):
            pass
        read_through(unfinished)
        unfinished.replace(target)
    except BaseException as error:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise StorageError(f"cannot write {target}: {error.strerror}") from error
        if isinstance(error, ProgramFailed):
            raise _not_dumped(error, target, backend.location) from error
        raise
    return target


def _exactly(name: str) -> str:
    """Return a name as a pattern of pg_dump's that matches nothing else."""
    return '"' + name.replace('"', '""') + '"'


def _not_dumped(error: ProgramFailed, target: Path, location: PostgreSQLLocation) -> PokerTherapistError:
    reason = str(error)
    if "No space left" in reason or "quota exceeded" in reason:
        return DatabaseFull(f"there is no room for {target} ({reason}): make some; nothing is left of it")
    if "lock timeout" in reason or "statement timeout" in reason:  # by which pg_dump limits its waiting
        return DatabaseBusy(
            f"{location.name} stayed locked for {location.timeout:g} seconds: find the session that keeps a "
            "transaction open in pg_stat_activity"
        )
    return StorageError(f"{location.name} could not be dumped ({reason}): nothing is left of {target}")


def _not_restored(
    error: psycopg.Error | ProgramFailed, file: Path, location: PostgreSQLLocation
) -> PokerTherapistError:
    if isinstance(error, ProgramFailed):
        reason = str(error)
    elif error.sqlstate is None or error.sqlstate[:2] in {"08", "25", "40", "53", "55", "57"}:
        return translate_error(error, location)  # it is about the server, not about what is restored
    else:
        # What else the server says of a value, and what follows a colon, may be a player's.
        reason = reason_of(error).partition(': "')[0]
        if isinstance(error, psycopg.errors.DependentObjectsStillExist) and error.diag.message_detail:
            reason += f": {'; '.join(error.diag.message_detail.splitlines())}"
    return StorageError(f"{file} could not be restored ({reason}): {location.name} is as it was")


def _replace(
    backend: AtomicPostgreSQLBackend, relations: list[tuple[str, str]], found: Dump, sources: Sequence[str]
) -> None:
    """Drop what is there and make what a dump holds, inside a transaction that the caller commits.

    pg_restore could connect and do this, too, but would drop only what the dump holds: the table of a later
    migration would stay, and be in the way when that is applied again.
    """
    connection = backend.connection
    _lock(backend, [sql.Identifier(found.schema, name) for name, kind in relations if kind == "TABLE"])
    for kind, group in groupby(relations, key=lambda relation: relation[1]):
        names = [sql.Identifier(found.schema, name) for name, _ in group]
        # What others have made upon it, a view say, is not ours to drop: no CASCADE.
        connection.execute(sql.SQL("DROP {} {}").format(sql.SQL(kind), sql.SQL(", ").join(names)))
    options: tuple[str, ...] = ()
    try:
        with connection.transaction():
            connection.execute(_script(found.file, "pre-data"))
    except (psycopg.errors.UndefinedObject, psycopg.errors.InsufficientPrivilege) as error:
        options = _BELONGING_TO_NOBODY
        connection.execute(_script(found.file, "pre-data", *options))
        logger.warning(
            "owners and rights could not be put back (%s): everything belongs to the role that restored it",
            reason_of(error),
        )
    _copy_rows(connection, found.file)
    connection.execute(_script(found.file, "post-data", *options))
    _forget_distribution(backend, found, sources)


def _lock(backend: AtomicPostgreSQLBackend, tables: list[sql.Identifier]) -> None:
    """Wait until nobody uses some tables, by short tries.

    Whoever has read one of them may want the next before it ends. A longer wait would be a deadlock with it,
    and the server would choose who fails; this lets go of everything before that. And whoever comes later
    waits no longer than a try takes.
    """
    if not tables:
        return
    deadline = time.monotonic() + backend.location.timeout
    backend.connection.execute("SET LOCAL lock_timeout = '200ms'")  # deadlock_timeout is a second
    while True:
        try:
            with backend.connection.transaction():
                backend.connection.execute(
                    sql.SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE").format(sql.SQL(", ").join(tables))
                )
                return
        except psycopg.errors.LockNotAvailable:
            if time.monotonic() > deadline:
                raise


def _script(file: Path, section: str, *options: str) -> bytes:
    """Return the statements of one section of a dump, without what is for psql alone."""
    with running("pg_restore", f"--section={section}", *options, "--file=-", file) as output:
        script = output.read()
    head, start, rest = script.partition(b"\n-- Name: ")
    head = _LIMITS.sub(b"", head)
    if key := re.search(rb"^\\restrict (\w+)$", head, re.MULTILINE):
        script, _, end = (head.replace(key[0], b"") + start + rest).rpartition(b"\\un" + key[0][1:])
        return script + end
    return head + start + rest


def _copy_rows(connection: psycopg.Connection[Any], file: Path) -> None:
    """Copy the rows of a dump, and let its sequences go on where they were.

    The rows are frozen: a transaction that took its snapshot before, and waited for the first table since,
    sees them. Otherwise it would see new tables with nothing in them.
    """
    with running("pg_restore", "--section=data", "--file=-", file) as output, connection.cursor() as cursor:
        for line in output:
            if line.startswith(b"COPY "):
                with cursor.copy(line.replace(b" FROM stdin;", b" FROM stdin WITH (FREEZE)")) as copy:
                    rows = bytearray()
                    for row in output:
                        if row == b"\\.\n":
                            break
                        rows += row
                        if len(rows) > 1 << 18:  # one call for each row would take longer than the copying
                            copy.write(bytes(rows))
                            rows.clear()
                    copy.write(bytes(rows))
            elif line.startswith(b"SELECT pg_catalog.setval("):
                cursor.execute(line)


def _forget_distribution(backend: AtomicPostgreSQLBackend, found: Dump, sources: Sequence[str]) -> None:
    """Take back the record that Citus has distributed the tables: a dump makes plain ones."""
    distributed = sorted({one.id for one in backend.read(sources[1:])} & found.applied) if sources[1:] else []
    if not distributed:
        return
    for table in {backend.migration_table, TEXTS} & found.tables:
        backend.connection.execute(
            sql.SQL("DELETE FROM {} WHERE migration_id = ANY(%s)").format(
                sql.Identifier(found.schema, table)
            ),
            (distributed,),
        )
    logger.warning("the tables are not distributed any more: apply %s again", ", ".join(distributed))


def _query(backend: AtomicPostgreSQLBackend, name: str, values: tuple[Any, ...] = ()) -> list[Any]:
    return psycopg.RawCursor(backend.connection).execute(_QUERIES[name], values).fetchall()
