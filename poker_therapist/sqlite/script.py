"""A plan as a script for the program sqlite3."""

import sqlite3
from pathlib import Path

from poker_therapist.compat import override
from poker_therapist.migrations.atomic import AtomicBackend
from poker_therapist.migrations.engine import ScriptDialect
from poker_therapist.migrations.script import BROKEN, LOST, STATE
from poker_therapist.sqlfile import Placeholders, read_queries
from poker_therapist.sqlite.backend import AtomicSQLiteBackend

_PRESENT = read_queries(Placeholders.SQLITE, Path(__file__).with_name("backend.sql"))["present"]
_ROWS = 'SELECT "table", rowid, parent FROM'


class SQLiteScript(ScriptDialect):
    """`sqlite3 FILE < SCRIPT`."""

    # Inside a transaction the first does nothing, as with the backend.
    begin = "PRAGMA foreign_keys = OFF;\nBEGIN IMMEDIATE;"
    user = "'sqlite3'"
    host = "'script'"
    uuid = "lower(printf('%s-%s-%s-%s-%s', {}))".format(
        ", ".join(f"hex(randomblob({size}))" for size in (4, 2, 2, 2, 6))
    )
    recorded = "applied_at_utc"

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
    def head(self) -> str:
        checks = "".join(
            f" WHEN {self.literal(one)} THEN RAISE(ABORT, {self.literal(one)})"
            for one in (STATE, LOST, BROKEN)
        )
        return (
            ".bail on\nPRAGMA busy_timeout = 10000;\nPRAGMA secure_delete = ON;\n"
            "CREATE TEMPORARY TABLE plan_problem (name TEXT);\n"
            "CREATE TEMPORARY TRIGGER plan_stops BEFORE INSERT ON plan_problem\n"
            f"BEGIN SELECT CASE new.name{checks} END; END;"
        )

    @override
    def tail(self) -> str:
        return "DROP TABLE temp.plan_problem;"

    @override
    def literal(self, value: str) -> str:
        return "'{}'".format(value.replace("'", "''"))

    @override
    def now(self) -> str:
        # Milliseconds are the most that SQLite tells; the rest keeps the order of what is recorded.
        self._times += 1
        return f"strftime('%Y-%m-%d %H:%M:%f', 'now') || '{self._times % 1000:03}'"

    @override
    def require(self, problem: str, condition: str) -> str:
        return f"INSERT INTO temp.plan_problem SELECT {self.literal(problem)} WHERE NOT ({condition});"

    @override
    def has_table(self, name: str) -> str:
        named = f"lower(name) = {self.literal(name.lower())}"
        return f"EXISTS (SELECT 1 FROM main.sqlite_schema WHERE type = 'table' AND {named})"

    @override
    def present(self) -> str:
        return _PRESENT

    @override
    def before(self, direction: str) -> str:
        return self._keys * (
            "CREATE TEMPORARY TABLE plan_broken AS SELECT * FROM pragma_foreign_key_check;\n"
            'CREATE TEMPORARY TABLE plan_keys AS SELECT child.name AS child, "key"."table" AS parent\n'
            'FROM sqlite_schema AS child, pragma_foreign_key_list(child.name) AS "key"\n'
            "WHERE child.type = 'table';"
        )

    @override
    def after(self, direction: str) -> str:
        # A rollback may bring back a key that never held.
        old = ' WHERE ("table", parent) IN (SELECT child, parent FROM plan_keys)' * (direction == "rollback")
        broken = f"{_ROWS} pragma_foreign_key_check{old} EXCEPT {_ROWS} plan_broken"
        checked = self.require(BROKEN, f"NOT EXISTS ({broken})")
        return self._keys * f"{checked}\nDROP TABLE plan_broken;\nDROP TABLE plan_keys;"
