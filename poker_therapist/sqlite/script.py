"""A plan as a script for the program sqlite3."""

import os
import re
import shlex
import sqlite3
from pathlib import Path

from poker_therapist.compat import override
from poker_therapist.migrations.atomic import AtomicBackend
from poker_therapist.migrations.engine import ScriptDialect
from poker_therapist.migrations.script import BROKEN, LOST, MISSING, STATE
from poker_therapist.sqlfile import Placeholders, read_queries
from poker_therapist.sqlite.backend import AtomicSQLiteBackend
from poker_therapist.sqlite.tokens import has_end

_ROWS = 'SELECT "table", rowid, parent FROM'
# What is in a .sqliterc must change neither what is run nor what is said. Silent: a PRAGMA shows its value.
_SETTINGS = (
    "echo off", "changes off", "eqp off", "stats off", "timer off", "headers off", "timeout 10000", "bail on"
)  # fmt: skip
_SILENT, _SHOWING = ".mode off\n", "\n.mode list"
_QUOTED = re.compile(
    r"""'(?:[^']|'')*' | "(?:[^"]|"")*" | `[^`]*` | \[[^\]]*\] | --[^\n]* | /\*.*?\*/""", re.DOTALL | re.X
)
# What the program would take for the end of a statement, or for a comment; and for NULL.
_TAKEN = re.compile(
    r"^[ \t]*(?P<line>/|go)[ \t]*$ | \A(?P<hash>\#) | [?:@] | (?<![\w$])\$\w", re.I | re.M | re.X
)


class SQLiteScript(ScriptDialect):
    """`sqlite3 FILE < SCRIPT`."""

    program = "sqlite3"
    # Inside a transaction the first does nothing, as with the backend.
    begin = "PRAGMA foreign_keys = OFF;\nBEGIN IMMEDIATE;"
    user = "'sqlite3'"
    host = "'script'"
    uuid = "lower(printf('%s-%s-%s-%s-%s', {}))".format(
        ", ".join(f"hex(randomblob({size}))" for size in (4, 2, 2, 2, 6))
    )
    recorded = "applied_at_utc"
    tables = "main.sqlite_schema WHERE type = 'table' AND lower(name)"
    present = read_queries(Placeholders.SQLITE, Path(__file__).with_name("backend.sql"))["present"]

    def __init__(self, backend: AtomicBackend) -> None:
        """Ask the database whether its foreign keys can be checked; an app's own may not."""
        assert isinstance(backend, AtomicSQLiteBackend)  # noqa: S101  # for the type
        self.backend: AtomicSQLiteBackend = backend
        self._times = 0
        self._keys = True
        if backend.exists():
            try:
                backend.connection.execute("SELECT 1 FROM pragma_foreign_key_check").fetchall()
            except sqlite3.OperationalError:
                self._keys = False

    @override
    def calls(self, file: str) -> list[str]:
        path = self.backend.location.path
        # The program would make a file that is missing, for everybody to read.
        opened = shlex.quote(f"{path.as_uri()}?mode=rw")
        run = f"sqlite3 -batch -init {os.devnull} {opened} < {shlex.quote(file)}"
        if self.backend.exists() and path.stat().st_size:
            return [run]
        return [f"(umask 077; sqlite3 -batch {shlex.quote(str(path))} 'PRAGMA user_version = 0')", run]

    @override
    def head(self) -> str:
        checks = "".join(
            f" WHEN {self.literal(one)} THEN RAISE(ABORT, {self.literal(one)})"
            for one in (MISSING, STATE, LOST, BROKEN)
        )
        there = self.require(MISSING, "(SELECT page_count FROM pragma_page_count) > 0")
        settings = "".join(f".{one}\n" for one in _SETTINGS)
        return (
            f"{settings}{_SILENT}PRAGMA secure_delete = ON;{_SHOWING}\n"
            f"CREATE TEMPORARY TABLE {self.prefix}_problem (name TEXT);\n"
            f"CREATE TEMPORARY TRIGGER {self.prefix}_stops BEFORE INSERT ON {self.prefix}_problem\n"
            f"BEGIN SELECT CASE new.name{checks} END; END;\n{there}"
        )

    @override
    def tail(self, done: str) -> str:
        return f"DROP TABLE temp.{self.prefix}_problem;\nSELECT {self.literal(done)};"

    @override
    def fault(self, text: str) -> tuple[int, str] | None:
        if not has_end(text):
            return 0, "this statement is incomplete: look for a quote, a bracket or an END that is missing"

        def blanked(found: re.Match[str]) -> str:
            mark = " " if found[0][0] in "-/" else "0"
            return mark + "\n" * found[0].count("\n") + mark

        code = _QUOTED.sub(blanked, text)
        if not (found := _TAKEN.search(code)):
            return None
        line = code.count("\n", 0, found.start())
        if found["line"] or found["hash"]:
            return line, f"it reads the line {found[0].strip()!r} as a command: join it with another"
        return line, f"{found[0]} is a parameter without a value: write the value"

    @override
    def statement(self, text: str) -> str:
        return f"{_SILENT}{text}{_SHOWING}" if text[:6].upper() == "PRAGMA" else text

    @override
    def now(self) -> str:
        # SQLite's clock has milliseconds; the rest keeps the order of what is recorded.
        self._times += 1
        return f"strftime('%Y-%m-%d %H:%M:%f', 'now') || '{self._times % 1000:03}'"

    @override
    def require(self, problem: str, condition: str) -> str:
        return (
            f"INSERT INTO temp.{self.prefix}_problem SELECT {self.literal(problem)} WHERE NOT ({condition});"
        )

    @override
    def before(self, direction: str) -> str:
        return self._keys * (
            f"CREATE TEMPORARY TABLE {self.prefix}_broken AS SELECT * FROM pragma_foreign_key_check;\n"
            f"CREATE TEMPORARY TABLE {self.prefix}_keys AS\n"
            'SELECT child.name AS child, "key"."table" AS parent\n'
            'FROM sqlite_schema AS child, pragma_foreign_key_list(child.name) AS "key"\n'
            "WHERE child.type = 'table';"
        )

    @override
    def after(self, direction: str) -> str:
        # A rollback may bring back a key that never held.
        known = f' WHERE ("table", parent) IN (SELECT child, parent FROM {self.prefix}_keys)'
        old = known * (direction == "rollback")
        broken = f"{_ROWS} pragma_foreign_key_check{old} EXCEPT {_ROWS} {self.prefix}_broken"
        checked = self.require(BROKEN, f"NOT EXISTS ({broken})")
        return self._keys * f"{checked}\nDROP TABLE {self.prefix}_broken;\nDROP TABLE {self.prefix}_keys;"
