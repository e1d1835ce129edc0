"""A plan as one SQL script for sqlite3 or psql, with the same result as the command.

It stops before it changes anything if the database is not in the state of the plan. After each migration it
makes the same checks as the command, and writes the same records: yoyo's rows, and the texts.
"""

import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from yoyo import internalmigrations

from poker_therapist.errors import InvalidInput, InvalidMigration, PokerTherapistError, escaped
from poker_therapist.location import command_about
from poker_therapist.migrations.atomic import AtomicBackend
from poker_therapist.migrations.bookkeeping import BOOKKEEPING_SQL
from poker_therapist.migrations.engine import ScriptDialect
from poker_therapist.migrations.files import SQLMigration
from poker_therapist.migrations.loss import described_loss
from poker_therapist.migrations.plan import PlannedMigration
from poker_therapist.sqlfile import Placeholders, read_queries

_QUERIES = read_queries(Placeholders.SQLITE, BOOKKEEPING_SQL)

# The messages of the script where it stops.
MISSING = "there is no database here: correct the path, and run this script with the command in its header"
STATE = "this database is not in the state of the plan: this migration was not run; make a new plan"
LOST = "this would drop what no migration created, so it was rolled back: poker-therapist apply names it"
BROKEN = "a row would violate a foreign key: this migration was rolled back; correct it"

# The state of a stored text, beside its checksum: it was started, or its migration was applied again since.
_BEGUN, _OTHER = " begun", " other"


class _Recorder:
    """Replaces a backend where yoyo creates its tables, and records the statements."""

    def __init__(self, backend: AtomicBackend) -> None:
        self._backend = backend
        self.statements: list[tuple[str, dict[str, Any]]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def execute(self, sql: str, values: dict[str, Any] | None = None) -> None:
        self.statements.append((sql, values or {}))


class _Script:
    """The script as it grows."""

    def __init__(self, dialect: ScriptDialect, backend: AtomicBackend, made: Collection[str]) -> None:
        self.dialect = dialect
        self.backend = backend
        self.applied = set(backend.applied())
        self.interrupted = backend.interrupted()
        self.texts = dict(_texts(backend))
        self.made = sorted(made)
        self.lines: list[str] = []
        tables = set(backend.list_tables()) if backend.exists() else set()
        self.has_record = backend.migration_table in tables
        self.has_texts, self.has_adopted = (f"_migration_{name}" in tables for name in ("text", "adopted"))

    def add(self, *statements: str) -> None:
        for one in statements:
            if one:
                self.lines += [_ended(one), ""]

    def query(self, name: str, *expressions: str) -> None:
        """Add a query of ours."""
        values = iter(expressions)
        self.add(re.sub(r"\?", lambda _: next(values), _QUERIES[name]))

    def yoyo(self, sql: str, values: dict[str, str]) -> None:
        """Add a statement of yoyo's."""
        filled = re.sub(r":([a-z_]+)\b", lambda found: values[found[1]], self.backend.format_sql(sql))
        self.add(filled.strip())

    def migration(self, one: PlannedMigration) -> None:
        """Add a migration: the order of events is that of `AtomicBackend`."""
        migration, direction = one.migration, one.direction
        statements = list(self._statements(one))
        how = "in one transaction" if one.is_transactional else "without a transaction"
        self.lines += [f"-- {escaped(migration.id)}: {direction}, {how}", f"-- {one.file}", ""]
        self._begin(one)
        if one.is_transactional:
            self.add(self.dialect.before(direction), *self._note("before"))
            self.lines += statements
            self.add(self.dialect.after(direction), self.dialect.reset, *self._require_ours())
            self._record(one)
        elif not migration.is_hook:
            self._keep(migration, "NULL")
        for found in one.found:
            if not self.has_adopted:
                self.query("create_adopted")
                self.has_adopted = True
            names = (self.backend.migration_table, migration.id, found)
            self.query("keep_adopted", *map(self.dialect.literal, names))
        self.add("COMMIT;")
        if not one.is_transactional:
            self.lines += statements
            self.add(self.dialect.reset, self.dialect.begin)
            self._record(one)
            self.add("COMMIT;")
        self.add(self.dialect.close)

    def _statements(self, one: PlannedMigration) -> Iterator[str]:
        """Yield the statements of a migration, in a form that the program runs unchanged.

        Raises:
            InvalidMigration: one cannot be written so; with its place.
        """
        for statement in (each.statement for each in one.statements):
            if fault := self.dialect.fault(statement.text):
                line = statement.line + fault[0]
                raise InvalidMigration(
                    f"{one.file}:{line}: {self.dialect.program} would not run this unchanged: {fault[1]}",
                    migration_id=one.migration.id,
                    file=one.file,
                    line=line,
                )
            yield self.dialect.statement(_ended(statement.text)) + "\n"

    def _begin(self, one: PlannedMigration) -> None:
        """Add the start of a migration's transaction: the conditions, and the bookkeeping tables."""
        dialect, backend = self.dialect, self.backend
        self.add(dialect.begin)
        for table, is_there, same in (
            (backend.migration_table, self.has_record, self._same_applied()),
            ("_migration_text", self.has_texts, self._same_texts()),
        ):
            there = dialect.has_table(table)
            self.add(dialect.require(STATE, there if is_there else f"NOT ({there})"))
            self.add(dialect.require(STATE, same) if is_there else "")
        if one.direction == "apply" and one.migration.id not in self.interrupted:
            for kind, _, name in (
                each.partition(" ") for each in one.migration.names_made(unless_there=True)
            ):
                if kind == "table":
                    condition = dialect.has_table(name)
                    self.add(dialect.require(STATE, condition if name in one.found else f"NOT ({condition})"))
        if not self.has_record:
            recorder, version = _Recorder(backend), max(internalmigrations.schema_versions)
            latest = internalmigrations.schema_versions[version]
            for make in (latest.create_log_table, latest.create_version_table, latest.create_migration_table):
                make(recorder)
            internalmigrations.mark_schema_version(recorder, version)
            for sql, _ in recorder.statements:
                self.yoyo(sql, {"version": str(version), "when": dialect.now()})
            self.has_record = True
        if not self.has_texts:
            self.query("create_texts")
            self.has_texts = True

    def _same_applied(self) -> str:
        """Return a condition: the ids that are applied are those of the plan, and what was run since."""
        ids = ", ".join(map(self.dialect.literal, sorted(self.applied))) or "NULL"
        rows = f"(SELECT count(*) FROM {self.backend.migration_table_quoted}"
        chosen = f"{rows} WHERE {self.backend.quote_identifier('migration_id')} IN ({ids}))"
        return f"{rows}) = {len(self.applied)} AND {chosen} = {len(self.applied)}"

    def _same_texts(self) -> str:
        """Return a condition: the stored texts are those of the plan, with those of the script since."""
        literal, record = self.dialect.literal, self.backend.migration_table_quoted
        table = literal(self.backend.migration_table)
        rows = f"(SELECT count(*) FROM _migration_text AS kept WHERE kept.migration_table = {table}"
        same_time = f"{record}.migration_id = kept.migration_id AND {self.dialect.recorded} = kept.applied_at"
        state = (
            "kept.migration_id || ' ' || coalesce(kept.checksum, '') || CASE\n"
            f"WHEN kept.applied_at IS NULL THEN {literal(_BEGUN)}\n"
            f"WHEN EXISTS (SELECT 1 FROM {record} WHERE {same_time}) THEN '' ELSE {literal(_OTHER)} END"
        )
        known = ", ".join(literal(f"{name} {what}") for name, what in sorted(self.texts.items())) or "NULL"
        return f"{rows}) = {len(self.texts)} AND {rows} AND {state} NOT IN ({known})) = 0"

    def _note(self, table: str) -> list[str]:
        """Return statements that record the existing objects."""
        table = f"{self.dialect.prefix}_{table}"
        make = f"CREATE TEMPORARY TABLE {table} (name TEXT, dropping TEXT);"
        return [make, f"INSERT INTO {table} {self.dialect.present}"]

    def _require_ours(self) -> list[str]:
        """Return statements that refuse to drop what no migration created, as `AtomicBackend` does."""
        made = ", ".join(map(self.dialect.literal, ("", *self.made)))
        before, now = (f"{self.dialect.prefix}_{when}" for when in ("before", "now"))
        gone = f"gone.name NOT IN (SELECT name FROM {now})"
        # A column that was dropped with its table is not reported separately.
        lost = (
            f"SELECT 1 FROM {before} AS gone WHERE {gone} AND gone.name NOT IN ({made}) AND NOT EXISTS (\n"
            f"SELECT 1 FROM {before} AS whole WHERE whole.name NOT IN (SELECT name FROM {now})\n"
            "AND whole.name LIKE 'table %' AND gone.name LIKE 'column ' || substr(whole.name, 7) || '.%')"
        )
        refused = self.dialect.require(LOST, f"NOT EXISTS ({lost})")
        return [*self._note("now"), refused, f"DROP TABLE {before};", f"DROP TABLE {now};"]

    def _record(self, one: PlannedMigration) -> None:
        migration, backend, literal = one.migration, self.backend, self.dialect.literal
        table, name = literal(backend.migration_table), literal(migration.id)
        values = {
            "migration_hash": literal(migration.hash),
            "migration_id": name,
            "when": self.dialect.now(),
            "id": self.dialect.uuid,
            "operation": literal(one.direction),
            "username": self.dialect.user,
            "hostname": self.dialect.host,
            "created_at_utc": self.dialect.now(),
        }
        if one.direction == "rollback":
            self.yoyo(backend.unmark_migration_sql, values)
            self.query("drop_text", table, name)
            if self.has_adopted:
                self.query("drop_adopted", table, name)
            self.applied.discard(migration.id)
            self.texts.pop(migration.id, None)
        elif not migration.is_hook:
            self.yoyo(backend.mark_migration_sql, values)
            rows = f"FROM {backend.migration_table_quoted} WHERE migration_id = {name}"
            self._keep(migration, f"(SELECT {self.dialect.recorded} {rows})")
            self.applied.add(migration.id)
        self.yoyo(backend.log_migration_sql, values)

    def _keep(self, one: SQLMigration, applied_at: str) -> None:
        literal = self.dialect.literal
        self.texts[one.id] = one.checksum + (_BEGUN if applied_at == "NULL" else "")
        texts = [literal(one.checksum), literal(one.apply_sql)]
        texts.append("NULL" if one.rollback_sql is None else literal(one.rollback_sql))
        self.query("keep_text", literal(self.backend.migration_table), literal(one.id), applied_at, *texts)


def _ended(statement: str) -> str:
    """Return a statement with its semicolon; one in a comment at its end is none."""
    is_ended = statement.rstrip().endswith(";") and "--" not in statement.rpartition("\n")[2]
    return statement if is_ended else f"{statement}\n;"


def _texts(backend: AtomicBackend) -> Iterator[tuple[str, str]]:
    """Yield the ids of the stored texts, each with its checksum and state: started, or applied again."""
    applied = backend.applied()
    for name, kept in backend.records().items():
        state = _BEGUN if kept.applied_at is None else "" if kept.applied_at == applied.get(name) else _OTHER
        yield name, (kept.checksum or "") + state


def script(dialect: ScriptDialect, planned: Sequence[PlannedMigration], file: str = "plan.sql") -> str:
    """Return a plan as the text of one SQL file; an empty plan as a comment alone.

    Args:
        dialect: of the database's engine.
        planned: what is to be run.
        file: how the file will be called.

    Raises:
        InvalidInput: a migration has no file, only a text in the database; or a text has a NUL character.
        InvalidMigration: the program would not run a statement unchanged.
    """
    backend = dialect.backend
    first = f"-- {escaped(backend.name)}: "
    if not planned:
        return f"{first}nothing to run.\n"
    migrations = [one.migration for one in planned]
    if gone := next((one.id for one in migrations if one.file is None), None):
        # Stored texts cannot be trusted, and these programs run shell commands.
        raise InvalidInput(f"{escaped(gone)} has no files here, which a script needs: restore them")
    if odd := next((one for one in migrations if "\0" in one.apply_sql + (one.rollback_sql or "")), None):
        raise InvalidInput(f"{odd.place()} or its rollback script contains a NUL character: delete it")
    history = backend.history({one.id: one for one in migrations if one.file is not None})
    made = {name for one in (*history, *migrations) for name in one.names_made()}
    with suppress(PokerTherapistError), backend.translating_errors():
        made |= backend.build([*history, *(one for one in migrations if one not in history)]).names()
    texts = "".join(one.apply_sql + (one.rollback_sql or "") for one in (*history, *migrations)).lower()
    while f"{dialect.prefix}_" in texts:
        dialect.prefix += "_"
    written = _Script(dialect, backend, made)
    words = ", ".join(f"{one.direction} {escaped(one.migration.id)}" for one in planned)
    backup = escaped(command_about(backend.location, "backup"))
    written.lines += [first + words, f"-- Back up the database first: `{backup}`", "-- Run it with:"]
    written.lines += [f"--     {escaped(call)}" for call in dialect.calls(file)]
    back = [one.migration for one in planned if one.direction == "rollback"]
    if lost := back and described_loss(backend, back):
        at = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S}"
        written.lines.append(f"-- This deletes {lost}, as counted at {at} (UTC).")
    written.lines.append("")
    written.add(dialect.head())
    for one in planned:
        written.migration(one)
    count = sum(not one.is_hook for one in migrations)
    done = "rolled back" if back else "applied"
    written.lines.append(dialect.tail(f"done: {count} migration{'s' * (count != 1)} {done}"))
    return "\n".join(written.lines).rstrip() + "\n"
