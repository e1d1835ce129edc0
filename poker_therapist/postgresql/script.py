"""A plan as a script for psql."""

from pathlib import Path

from poker_therapist.compat import override
from poker_therapist.migrations.atomic import AtomicBackend
from poker_therapist.migrations.engine import ScriptDialect
from poker_therapist.postgresql.backend import TABLE_TIMEOUT, AtomicPostgreSQLBackend
from poker_therapist.postgresql.home import set_path
from poker_therapist.sqlfile import Placeholders, read_queries

_PRESENT = read_queries(Placeholders.POSTGRESQL, Path(__file__).with_name("backend.sql"))["present"]
_LOCKED = "somebody else is migrating this database: wait until that is done"


class PostgreSQLScript(ScriptDialect):
    """`psql DATABASE -f SCRIPT`, on the server that the plan was made for."""

    begin = "BEGIN;"
    user = "session_user"
    host = "coalesce(host(inet_client_addr()), 'local')"
    uuid = "gen_random_uuid()"
    # As Python writes a time: whole seconds have no fraction.
    recorded = "regexp_replace(to_char(applied_at_utc, 'YYYY-MM-DD HH24:MI:SS.US'), '\\.000000$', '')"

    def __init__(self, backend: AtomicBackend) -> None:
        """Ask the database for what a session of ours has."""
        assert isinstance(backend, AtomicPostgreSQLBackend)  # noqa: S101  # for the type
        self.backend: AtomicPostgreSQLBackend = backend
        self._home, path = backend.schema, set_path(backend.home.path)
        ((self._key,),) = backend.query("lock_key_of", (self._home, backend.migration_table))
        self._settings = (
            "SET client_encoding = 'UTF8';\nSET standard_conforming_strings = on;\nSET DateStyle = 'ISO';\n"
            f"SET TimeZone = 'UTC';\nSET lock_timeout = '{TABLE_TIMEOUT}';\n{path};"
        )
        self.reset = f"RESET SESSION AUTHORIZATION;\nRESET ROLE;\nRESET ALL;\n{self._settings}"
        self.close = f"{self.reset}\nDISCARD TEMPORARY;"

    @override
    def head(self) -> str:
        # What a .psqlrc may have set otherwise.
        settings = "ON_ERROR_STOP on", "ON_ERROR_ROLLBACK off", "AUTOCOMMIT on", "SINGLELINE off", "QUIET on"
        told = "".join(f"\\set {one}\n" for one in settings)
        return f"{told}{self._settings}\n{self.require(_LOCKED, f'pg_try_advisory_lock({self._key})')}"

    @override
    def tail(self) -> str:
        return self._block(f"PERFORM pg_advisory_unlock({self._key});")

    @override
    def literal(self, value: str) -> str:
        return "'{}'".format(value.replace("'", "''"))

    @override
    def now(self) -> str:
        return "clock_timestamp() AT TIME ZONE 'UTC'"

    @override
    def require(self, problem: str, condition: str) -> str:
        raising = f"RAISE EXCEPTION USING MESSAGE = {self.literal(problem)};"
        return self._block(f"IF NOT ({condition}) THEN {raising} END IF;")

    @override
    def has_table(self, name: str) -> str:
        named = f"lower(tablename) = {self.literal(name.lower())}"
        return f"EXISTS (SELECT 1 FROM pg_tables WHERE schemaname = {self.literal(self._home)} AND {named})"

    @override
    def present(self) -> str:
        return _PRESENT.replace("$1", self.literal(self._home))

    @override
    def before(self, direction: str) -> str:
        return ""

    @override
    def after(self, direction: str) -> str:
        return "SET CONSTRAINTS ALL IMMEDIATE;"

    @staticmethod
    def _block(statements: str) -> str:
        tag = "plan"
        while f"${tag}$" in statements:
            tag += "_"
        return f"DO ${tag}$ BEGIN {statements} END ${tag}$;"
