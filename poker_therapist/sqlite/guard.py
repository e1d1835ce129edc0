"""What an untrusted SQL text may do: on a copy, in memory, or from the text kept in a database."""

import re
import sqlite3

from poker_therapist.sqlite.connect import Watch

# Functions of SQLite's own modules; every other that is allowed is one of its core.
_OF_MODULES = {
    "bm25", "fts5", "fts5_source_id", "highlight", "match", "matchinfo", "offsets", "optimize", "rtreecheck",
    "rtreedepth", "rtreenode", "snippet",
}  # fmt: skip
_NEVER = {"edit", "fts3_tokenizer", "load_extension", "readfile", "sqlite_log", "writefile"}
_MODULES = {"fts3", "fts4", "fts4aux", "fts5", "fts5vocab", "geopoly", "rtree", "rtree_i32"}
# Pragmas that change nothing beyond the database that they are run in, and its connection.
_PRAGMAS = re.compile(
    r"""
    analysis_limit | application_id | auto_vacuum | automatic_index | busy_timeout | cache_size |
    cache_spill | case_sensitive_like | cell_size_check | checkpoint_fullfsync | data_version |
    defer_foreign_keys | encoding | foreign_key_check | foreign_key_list | foreign_keys | fullfsync |
    function_list |
    ignore_check_constraints | incremental_vacuum | index_x?info | index_list | integrity_check |
    journal_mode | journal_size_limit | legacy_alter_table | optimize | page_size | query_only | quick_check |
    recursive_triggers | reverse_unordered_selects | secure_delete | synchronous | table_x?info |
    table_list | trusted_schema | user_version | wal_autocheckpoint | wal_checkpoint
    """,
    re.IGNORECASE | re.VERBOSE,
)
# What they set is of no use here, and would use up more than is wanted.
_IGNORED_PRAGMAS = {"locking_mode", "max_page_count", "mmap_size", "temp_store", "threads"}
_SCHEMA_WORDS = {"ALTER", "ATTACH", "CREATE", "DETACH", "DROP", "PRAGMA", "VACUUM"}
_VACUUM_IN_PLACE = re.compile(r"VACUUM\b(?!.*\bINTO\b)", re.IGNORECASE | re.DOTALL)

_MOST_PAGES = 4096
_LIMITS = {
    sqlite3.SQLITE_LIMIT_ATTACHED: 0,
    sqlite3.SQLITE_LIMIT_LENGTH: 1_000_000,
    sqlite3.SQLITE_LIMIT_SQL_LENGTH: 1_000_000,
    sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH: 100,
    sqlite3.SQLITE_LIMIT_TRIGGER_DEPTH: 20,
}


class Guard:
    """Refuses what has effects outside the database of a connection, and names it.

    Attributes:
        refused: what a statement wanted that it may not; empty if nothing.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        """Guard a connection from now on."""
        self.refused = ""
        self._skips_other_databases = False
        found = connection.execute("SELECT lower(name) FROM pragma_function_list")
        self._functions = {name for (name,) in found} - _NEVER
        self._modules: set[str] | None = None
        self._connection = connection
        connection.set_authorizer(self._allow)

    def release(self) -> None:
        """Guard the connection no more."""
        self._connection.set_authorizer(None)

    def _allow(self, action: int, name: str | None, value: str | None, *_where: str | None) -> int:
        """Answer SQLite, which asks while it compiles a statement; https://sqlite.org/c3ref/c_alter_table.html."""
        why = ""
        if action in (sqlite3.SQLITE_ATTACH, sqlite3.SQLITE_DETACH):
            if name == "" and action == sqlite3.SQLITE_ATTACH:  # so does VACUUM, for its temporary file
                return sqlite3.SQLITE_OK
            if self._skips_other_databases:
                return sqlite3.SQLITE_IGNORE
            why = "it attaches another database"
        elif action == sqlite3.SQLITE_PRAGMA and value is not None and name is not None:
            if name.lower() in _IGNORED_PRAGMAS:
                return sqlite3.SQLITE_IGNORE
            why = "" if _PRAGMAS.fullmatch(name) else f"it sets PRAGMA {name}"
        elif action == sqlite3.SQLITE_FUNCTION and value is not None:
            known = value.lower() in self._functions or value.startswith("sqlite_")
            why = "" if known and value.lower() not in _NEVER else f"it calls {value}()"
        elif action == sqlite3.SQLITE_CREATE_VTABLE and self._modules is not None:
            why = "" if (value or "").lower() in self._modules else f"it creates a virtual table with {value}"
        self.refused = self.refused or why
        return sqlite3.SQLITE_DENY if why else sqlite3.SQLITE_OK


class Refused(Exception):
    """A text cannot be run; the message says why."""


class MemoryGuard(Guard):
    """A database in memory in which texts of unknown origin are tried, for the schema that they build.

    Rows are of no interest: only what changes a schema is run. It ends after a time and at a size.
    """

    def __init__(self, connection: sqlite3.Connection, watch: Watch, *, skips_other_databases: bool) -> None:
        """Guard a connection to a new database in memory.

        Args:
            connection: to nothing but that.
            watch: ends it after a time.
            skips_other_databases: whether to leave out what concerns an attached database, not refuse it.
        """
        for limit, most in _LIMITS.items():
            connection.setlimit(limit, most)
        connection.execute("PRAGMA temp_store = FILE")
        for schema in ("main", "temp"):
            connection.execute(f"PRAGMA {schema}.max_page_count = {_MOST_PAGES}")
        super().__init__(connection)
        builtin = connection.execute("SELECT lower(name) FROM pragma_function_list WHERE builtin")
        self._functions = {name for (name,) in builtin} | _OF_MODULES
        self._modules = _MODULES
        self._skips_other_databases = skips_other_databases
        self._watch = watch
        watch.attach(connection, every=100, trusted=True)

    def run(self, sql: str) -> None:
        """Run a statement if it may change the schema.

        Raises:
            Refused: it may not be run here, or takes too long.
            sqlite3.Error: it fails.
        """
        found = re.match(r"\w*", sql)
        if not found or found[0].upper() not in _SCHEMA_WORDS or _VACUUM_IN_PLACE.match(sql):
            return
        try:
            for _ in self._connection.execute(sql):
                pass
        except (sqlite3.Error, sqlite3.Warning) as error:
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            if self.refused:
                raise Refused(self.refused) from error
            if self._watch.is_over():
                raise Refused("it takes too long") from error
            if code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_TOOBIG, sqlite3.SQLITE_NOMEM):
                raise Refused(f"it is too large ({error})") from error
            if not (self._skips_other_databases and str(error).startswith("unknown database")):
                raise
        if self._watch.is_over():  # which SQLite does not ask while it only compiles
            raise Refused("it takes too long")
