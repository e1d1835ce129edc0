"""Backups of a PostgreSQL database: pg_dump makes them, pg_restore reads them, one transaction restores them.

A backup holds what the migrations have made and nothing of the app's, which may have tables in that schema.
The texts of the migrations name these objects, so that a read-only standby can be dumped, too.
"""

import logging
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import groupby, takewhile
from operator import itemgetter
from pathlib import Path
from typing import IO

import psycopg
from psycopg import pq
from psycopg.conninfo import make_conninfo

from poker_therapist.errors import (
    DatabaseBusy,
    DatabaseFull,
    DatabaseNotFound,
    DatabaseUnreadable,
    InvalidInput,
    PokerTherapistError,
    SchemaMissing,
    SchemaTooNew,
    StorageError,
    counted,
    escaped,
)
from poker_therapist.location import PostgreSQLLocation, command_about
from poker_therapist.migrations.header import is_compatible
from poker_therapist.migrations.progress import WATCHER, report_progress
from poker_therapist.new_files import new_file, private_folders, time_for_names
from poker_therapist.postgresql import dumped
from poker_therapist.postgresql.backend import AtomicPostgreSQLBackend
from poker_therapist.postgresql.connect import reason_of, translate_error
from poker_therapist.postgresql.dumped import is_row
from poker_therapist.sqlfile import Placeholders, read_queries

logger = logging.getLogger("poker_therapist.migrations")

_QUERIES = read_queries(Placeholders.POSTGRESQL, Path(__file__).with_suffix(".sql"))
_INSTALL = (
    "install the PostgreSQL client programs of the server's version or a later one (package "
    "postgresql-client on Debian and Ubuntu, libpq on Homebrew), and put their folder first on PATH"
)
# Seconds between two queries of the progress of pg_dump.
_GLANCE = 0.5
_NAME = r'(?:\w+|"(?:[^"]|"")+")'
# How a statement begins that names what it makes.
_MAKES = re.compile(
    r"(?:CREATE\s+(?:OR\s+REPLACE\s+|UNLOGGED\s+|RECURSIVE\s+)*(?:TABLE|VIEW|SEQUENCE)\s+(?:IF\s+NOT\s+EXISTS\s+)?"
    rf"|ALTER\s+(?:TABLE|VIEW|SEQUENCE)\b.*?\sRENAME\s+TO\s+)(?:{_NAME}\s*\.\s*)?({_NAME})",
    re.IGNORECASE | re.DOTALL,
)
# A line of a dump's list, of a kind that pg_dump writes of a table, view or sequence; and the schema.
_ENTRY = re.compile(
    r"\d+; \d+ \d+ (?:TABLE(?: DATA| ATTACH)?|VIEW|SEQUENCE(?: SET| OWNED BY)?|DEFAULT|POLICY|COMMENT"
    r"|(?:CHECK |FK )?CONSTRAINT|INDEX(?: ATTACH)?|TRIGGER|RULE|ACL|(?:ROW )?SECURITY(?: LABEL)?)"
    r" (\S+) .+"
)
_COPIED = rb"COPY \S+\.%s \((.*)\) FROM stdin;\n"
# What COPY writes for these characters.
_ESCAPES = {b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t", b"v": b"\v"}
_Relations = list[tuple[str, str]]  # kinds, and quoted names


class _ProgramFailed(Exception):
    """A program ended with an error, for this reason."""


def save_backup(location: PostgreSQLLocation, output: Path | None, sources: Sequence[str]) -> Path:
    """Dump what the migrations have made, as of one moment, while others use the database; none migrates.

    The file gets its name when it is whole, and only its owner may read it; nothing is left if this fails.
    Unless `output` is given, it is in the working folder and named by database and time.

    Raises:
        InvalidInput, SchemaMissing: there is a file at `output` already; no migration was ever applied.
        StorageError: a program, a right or room is missing, or a table stays locked.
    """
    _require_programs()
    with (
        _explaining(f"{location.name} could not be dumped", location),
        AtomicPostgreSQLBackend(location) as backend,
        backend.migration_lock(),
    ):
        if relations := _relations(backend, sources):
            if backend.home.is_distributed:
                logger.warning("Citus has no snapshot across nodes: stop the app for a consistent backup")
            return _dump(backend, relations, output or _named_by_time(backend))
    raise SchemaMissing(
        f"{location.name} has no tables of Poker Therapist to back up: correct the name or the schema, or "
        f"create the tables with `{command_about(location, 'apply')}`"
    )


def restore(location: PostgreSQLLocation, file: Path, sources: Sequence[str]) -> Path | None:
    """Replace what the migrations have made with what a dump holds; return the backup of what was replaced.

    One transaction drops the old and creates the new tables, while others are connected: no session sees a
    part of it, and if it fails, or this process dies, nothing has changed. What others write while the backup
    is made is replaced and not in that backup. The role that restores owns the tables. They are plain ones:
    the migration of an optional source, which distributes them, is pending again, with a warning.

    Raises:
        DatabaseNotFound, DatabaseUnreadable: there is no such file; it is damaged, or not from `save_backup`.
        InvalidInput, SchemaTooNew: it is of another schema; it was made by a later version of the code.
        StorageError: a program, a right or room is missing, a table stays locked, or something else needs
            what is to be dropped, such as a view of the app's.
    """
    _require_programs()
    file = file.absolute()
    with (
        _explaining(f"{file} could not be restored", location),
        AtomicPostgreSQLBackend(location) as backend,
        backend.migration_lock(),
        tempfile.TemporaryFile(dir=Path.cwd()) as script,  # where there is room for a backup
    ):
        with _explaining(f"{file} is not a dump, or is damaged", location, DatabaseUnreadable):
            _read(backend, file, script, sources)
        relations = _relations(backend, sources)
        target = _named_by_time(backend, "before-restore.")
        replaced = _dump(backend, relations, target) if relations else None
        try:
            with backend.transaction():
                _replace(backend, relations, script, sources)
        except BaseException:
            target.unlink(missing_ok=True)  # nothing was replaced
            raise
    return replaced


def _rows(script: IO[bytes], table: bytes) -> list[dict[str, str | None]] | None:
    """Return the rows of a table in the script of a dump; None if it is not there."""
    script.seek(0)
    begins = re.compile(_COPIED % table)
    found = next((found for line in script if (found := begins.fullmatch(line))), None)
    if found is None:
        return None
    columns = found[1].decode().split(", ")
    rows = (map(_value, row[:-1].split(b"\t")) for row in takewhile(is_row, script))
    return [dict(zip(columns, row, strict=True)) for row in rows]


def _value(written: bytes) -> str | None:
    """Return what COPY has written as a value."""
    if written == b"\\N":
        return None
    return re.sub(rb"\\(.)", lambda found: _ESCAPES.get(found[1], found[1]), written).decode(errors="replace")


def _relations(backend: AtomicPostgreSQLBackend, sources: Sequence[str]) -> _Relations:
    """Return the kind and quoted name of everything in the schema in use that the migrations have made."""
    applied = backend.history({one.id: one for one in backend.read(sources)})
    kept = backend.records().values()  # also of what was interrupted
    names = [backend.migration_table, backend.log_table, backend.version_table, backend.lock_table]
    names += ["_migration_text", "_migration_adopted"]
    for text in (*(one.apply_sql for one in applied), *(one.apply_sql or "" for one in kept)):
        found = [made[1] for one in backend.split(text) if (made := _MAKES.match(one.text))]
        names += [name[1:-1].replace('""', '"') if name[0] == '"' else name.lower() for name in found]
    return (
        psycopg.RawCursor(backend.connection)
        .execute(_QUERIES["relations"], (backend.schema, names))
        .fetchall()
    )


def _named_by_time(backend: AtomicPostgreSQLBackend, before: str = "") -> Path:
    """Return a name in the working folder, the server's may be elsewhere; remove what killed dumps left."""
    database = re.sub(r"[^\w.-]", "_", backend.connection.info.dbname)
    left = re.escape(database) + r"\.\d{8}T\d{6}\.\d{6}Z\.(before-restore\.)?backup\.part-\w{8}"
    private_folders(Path.cwd(), left, remove=True)
    return Path.cwd() / f"{database}.{time_for_names()}.{before}backup"


def _dump(backend: AtomicPostgreSQLBackend, relations: _Relations, target: Path) -> Path:
    """Write a dump that has its name only when it is whole; nothing is left of one that fails."""
    info = backend.connection.info
    # To the very server, of several; without the password, as every user of the machine sees the arguments.
    conninfo = make_conninfo(info.dsn, host=info.host, port=info.port, hostaddr=info.hostaddr)
    for option in pq.Conninfo.parse(conninfo.encode()):
        if option.val and option.dispchar:  # libpq's mark of what is not to be shown
            raise InvalidInput(f"other users could see {option.keyword.decode()}: connect without it")
    options = ["--no-password", "--format=custom", "--encoding=UTF8", f"--dbname={conninfo}"]
    options += [f"--table={name}" for _, name in relations]
    milliseconds = max(backend.location.timeout * 1000, 1)  # 0 would be to wait for ever
    options.append(f"--lock-wait-timeout={milliseconds:.0f}")
    with new_file(target) as (unfinished, descriptor):
        # Not by its path, if the system can: somebody may put another file there.
        file = Path(f"/dev/fd/{descriptor}") if Path("/dev/fd").is_dir() else unfinished
        report_progress(f"backing up {info.dbname}")
        tell = _rows_dumped(backend, relations)
        _run("pg_dump", *options, f"--file={file}", password=info.password, descriptor=descriptor, tell=tell)
        report_progress(f"checking the backup of {info.dbname}")
        _run("pg_restore", f"--file={os.devnull}", file, descriptor=descriptor)
    return target


def _rows_dumped(backend: AtomicPostgreSQLBackend, relations: _Relations) -> Callable[[], None]:
    """Return a function that reports how many rows pg_dump has read, by the statistics of the server."""
    tables, seen = [name for kind, name in relations if kind == "TABLE"], dict[int, int]()

    def tell() -> None:
        if WATCHER.get() is None:
            return
        with suppress(psycopg.Error):  # pg_dump will say what is wrong
            cursor = psycopg.RawCursor(backend.connection).execute(_QUERIES["dumped"], (tables,))
            rows = cursor.fetchall()
            seen.update((table, read) for table, _, read in rows if read)
            done, about = sum(seen.values()), int(sum(estimate for _, estimate, _ in rows))
            report_progress(
                f"backing up {backend.connection.info.dbname}", done, about if done < about else 0
            )

    return tell


def _read(backend: AtomicPostgreSQLBackend, file: Path, script: IO[bytes], sources: Sequence[str]) -> None:
    """Write the script of a dump to a file; refuse one of another origin, schema or a later version."""
    if not file.is_file():
        raise DatabaseNotFound(f"there is no file {file}: give the path of a backup")
    report_progress(f"reading {file.name}")
    listed = _run("pg_restore", "--list", file).decode(errors="replace").splitlines()
    # Roles, rights and tablespaces are those of one server, and the dump may be of another.
    options = ("--no-owner", "--no-privileges", "--no-tablespaces", "--file=-")
    _run("pg_restore", *options, file, output=script)
    recorded = _rows(script, b"_yoyo_migration")
    if recorded is None:
        raise DatabaseUnreadable(f"{file} is a dump, but not of Poker Therapist: correct the path")
    applied = {str(row["migration_id"]): str(row["applied_at_utc"]) for row in recorded}
    newer = sorted(applied.keys() - {one.id for one in backend.read(sources)})
    # The server writes no zeros at the end of a time; Python, which has written the kept one, does.
    may_go_on = {
        name
        for row in (_rows(script, b"_migration_text") or () if newer else ())
        if str(row["applied_at"]).rstrip("0") == applied.get(name := str(row["migration_id"]), "").rstrip("0")
        and is_compatible(row["apply_sql"] or "")
    }
    if newer and not may_go_on.issuperset(newer):
        raise SchemaTooNew(
            f"{file} was made by a later version ({escaped(', '.join(newer))}): update the code",
            unknown=newer,
        )
    schemas = set()
    for line in listed:
        entry = _ENTRY.fullmatch(line)
        if entry and entry[1] != "-":
            schemas.add(entry[1])
        elif line[:1].isdigit():
            raise DatabaseUnreadable(
                f"{file} has an unexpected object ({line.split(maxsplit=3)[3]}): restore it with pg_restore"
            )
    schema = backend.schema
    if schemas != {schema}:
        raise InvalidInput(
            f"{file} is a backup of the schema {', '.join(sorted(schemas))}, not of {schema}: "
            f"add schema={min(schemas)} to the URL of the database"
        )
    dumped.require_harmless(backend.connection, schema, file, script)


def _replace(
    backend: AtomicPostgreSQLBackend, relations: _Relations, script: IO[bytes], sources: Sequence[str]
) -> None:
    """Drop what is there and run the script of a dump, inside a transaction that the caller commits.

    pg_restore itself would drop only what the dump holds, and leave the table of a later migration.
    """
    if tables := [name for kind, name in relations if kind == "TABLE"]:
        _lock(backend, ", ".join(tables))
    for kind, group in groupby(relations, key=itemgetter(0)):
        # No CASCADE: what others have made upon it, a view say, is not ours to drop.
        backend.connection.execute(f"DROP {kind} {', '.join(name for _, name in group)}".encode())
    dumped.run(backend.connection, script)
    shipped = {one.id for one in backend.read(sources[:1])}
    for migration in backend.read(sources):
        if migration.id not in shipped and migration.id in backend.applied():  # a dump does not distribute
            backend.unmark_one(migration, log=False)
            if migration.id in backend.records():
                backend.query("drop_text", (backend.migration_table, migration.id))
            logger.warning("the restored tables are not distributed: apply %s again", migration.id)


def _lock(backend: AtomicPostgreSQLBackend, tables: str) -> None:
    """Lock some tables by short attempts, between which other sessions continue.

    Another session may have read one table and want the next: a longer wait would be a deadlock with it.
    """
    deadline = time.monotonic() + backend.location.timeout
    backend.connection.execute("SET LOCAL lock_timeout = '200ms'")  # deadlock_timeout is a second
    while True:
        try:
            with backend.connection.transaction():
                backend.connection.execute(f"LOCK TABLE {tables} IN ACCESS EXCLUSIVE MODE".encode())
                return
        except psycopg.errors.LockNotAvailable:
            if time.monotonic() > deadline:
                raise


@contextmanager
def _explaining(
    what: str, location: PostgreSQLLocation, otherwise: type[PokerTherapistError] = StorageError
) -> Iterator[None]:
    """Translate an error of a program, the server or the system to ours; nothing was changed."""
    try:
        yield
    except (psycopg.Error, _ProgramFailed, OSError) as error:
        state = error.sqlstate[:2] if isinstance(error, psycopg.Error) and error.sqlstate else ""
        if isinstance(error, psycopg.Error) and state in {"", "08", "25", "40", "53", "55", "57"}:
            raise translate_error(error, location) from error  # it is about the server, not about a dump
        # What else the server says of a value, and what follows a colon, may be a player's.
        reason = reason_of(error).partition(': "')[0]
        if isinstance(error, OSError):
            reason = f"{error.filename}: {error.strerror}"
        elif isinstance(error, psycopg.errors.DependentObjectsStillExist) and error.diag.message_detail:
            reason += f": {'; '.join(error.diag.message_detail.splitlines())}"
        kind, advice = otherwise, "nothing was changed"
        if "No space left" in reason or "quota exceeded" in reason:
            kind, advice = DatabaseFull, "free disk space; nothing was changed"
        elif "lock timeout" in reason or "statement timeout" in reason:  # by which pg_dump limits its waiting
            advice = "find the session that keeps a transaction open in pg_stat_activity"
            kind, advice = (
                DatabaseBusy,
                f"it is still locked after {counted(location.timeout, 'second')}; {advice}",
            )
        elif any(said in reason for said in ("permission denied", "must be owner", "row-level security")):
            advice = "connect as the role that owns the tables; nothing was changed"
        elif kind is DatabaseUnreadable:
            advice = "use another backup"
        raise kind(f"{what} ({reason}): {advice}") from error


def _require_programs() -> None:
    """Raise StorageError unless the programs are on PATH, by which an operator chooses their version."""
    for program in ("pg_dump", "pg_restore"):
        if shutil.which(program) is None:
            raise StorageError(f"{program} is not installed, or its folder is not on PATH: {_INSTALL}")


def _run(
    program: str,
    *arguments: str | Path,
    password: str | None = None,
    output: IO[bytes] | None = None,
    descriptor: int | None = None,
    tell: Callable[[], None] = lambda: None,
) -> bytes:
    """Run a program, which may use a descriptor; return what it prints, or write that to a file.

    While it runs, `tell` is called every half second.
    """
    secret = {"PGPASSWORD": password} if password else {}
    with subprocess.Popen(  # noqa: S603  # no shell, and paths are absolute or behind a `=`
        [shutil.which(program) or program, *arguments],
        env={**os.environ, **secret, "LC_ALL": "C"},  # its complaints are searched for words
        stdin=subprocess.DEVNULL,
        stdout=output or subprocess.PIPE,
        stderr=subprocess.PIPE,
        pass_fds=() if descriptor is None or os.name == "nt" else (descriptor,),
    ) as process:
        try:
            while True:
                try:
                    printed, complaints = process.communicate(timeout=_GLANCE)
                    break
                except subprocess.TimeoutExpired:
                    tell()
        except BaseException:  # Ctrl-C
            process.kill()
            process.wait()
            raise
    if process.returncode:
        said = complaints.decode(errors="replace")
        if older := re.search(r"server version: .*", said):
            raise StorageError(f"{program} is older than the server ({older[0]}): {_INSTALL}")
        if later := re.search(r"unsupported version .*", said):
            raise StorageError(f"{program} is older than the one that made the dump ({later[0]}): {_INSTALL}")
        found = re.search(r"Error message from server: *(.*)", said) or re.search(r"error: *(.*)", said)
        raise _ProgramFailed(" ".join(found[1].split()) if found else "it gave no reason")
    return printed or b""
