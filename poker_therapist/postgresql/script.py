"""A plan as a script for psql."""

import re
import shlex
from pathlib import Path

from psycopg import pq
from psycopg.conninfo import make_conninfo

from poker_therapist.compat import override
from poker_therapist.migrations.atomic import AtomicBackend
from poker_therapist.migrations.engine import ScriptDialect
from poker_therapist.postgresql.backend import TABLE_TIMEOUT, AtomicPostgreSQLBackend
from poker_therapist.postgresql.home import set_path
from poker_therapist.postgresql.split import COPIES_ROWS, NO_ROWS, is_open, tokens
from poker_therapist.sqlfile import Placeholders, read_queries

_PRESENT = read_queries(Placeholders.POSTGRESQL, Path(__file__).with_name("backend.sql"))["present"]
_LOCKED = "another session is migrating this database: wait until it has finished"
# What a .psqlrc may have set otherwise.
_SETTINGS = (
    *("ON_ERROR_STOP on", "ON_ERROR_ROLLBACK off", "AUTOCOMMIT on", "SINGLELINE off", "SINGLESTEP off"),
    *("QUIET on", "ECHO none"),
)
# What begins a variable of psql's after a colon.
_VARIABLE = re.compile(r"[\w'\"{\x80-\U0010ffff]")
_STRINGS = "standard_conforming_strings"


class PostgreSQLScript(ScriptDialect):
    """`psql DATABASE -f SCRIPT`, on the server that the plan was made for."""

    program = "psql"
    begin = "BEGIN;"
    user = "session_user"
    host = "coalesce(host(inet_client_addr()), 'local')"
    uuid = "gen_random_uuid()"
    # As Python writes a time: whole seconds have no fraction.
    recorded = "regexp_replace(to_char(applied_at_utc, 'YYYY-MM-DD HH24:MI:SS.US'), '\\.000000$', '')"
    tables = "pg_tables WHERE schemaname = current_schema() AND lower(tablename)"

    def __init__(self, backend: AtomicBackend) -> None:
        """Ask the database for what a session of ours has."""
        assert isinstance(backend, AtomicPostgreSQLBackend)  # noqa: S101  # for the type
        self.backend: AtomicPostgreSQLBackend = backend
        self._home, path = backend.schema, set_path(backend.home.path)
        ((self._key,),) = backend.query("lock_key_of", (self._home, backend.migration_table))
        self.present = _PRESENT.replace("$1", self.literal(self._home))
        self._settings = (
            f"SET client_encoding = 'UTF8';\nSET {_STRINGS} = on;\nSET DateStyle = 'ISO';\n"
            "SET client_min_messages = warning;\n"
            f"SET TimeZone = 'UTC';\nSET lock_timeout = '{TABLE_TIMEOUT}';\n{path};"
        )
        self.reset = f"RESET SESSION AUTHORIZATION;\nRESET ROLE;\nRESET ALL;\n{self._settings}"
        self.close = f"{self.reset}\nDISCARD TEMPORARY;"

    @override
    def calls(self, file: str) -> list[str]:
        given = pq.Conninfo.parse(self.backend.location.conninfo.encode())
        # libpq's mark of what is not to be shown.
        public = {one.keyword.decode(): one.val.decode() for one in given if one.val and not one.dispchar}
        words = ("psql", "--no-psqlrc", "--dbname", make_conninfo("", **public), "--file", file)
        return [shlex.join(words)]

    @override
    def head(self) -> str:
        told = "".join(f"\\set {one}\n" for one in _SETTINGS) + "\\timing off\n\\pset pager off\n"
        return f"{told}{self._settings}\n{self.require(_LOCKED, f'pg_try_advisory_lock({self._key})')}"

    @override
    def tail(self, done: str) -> str:
        return f"{self._block(f'PERFORM pg_advisory_unlock({self._key});')}\n\\echo {self.literal(done)}\n"

    @override
    def fault(self, text: str) -> tuple[int, str] | None:
        why, place = NO_ROWS if COPIES_ROWS.match(text) else "", 0
        for token in () if why else tokens(text):
            if token[0] == "\\":
                word = text[token.start() :].split(maxsplit=1)[0].rstrip(";")
                why = f"{word} is a command of psql: remove it"
            elif token[0].lower() == _STRINGS:
                why = f"{token[0]} changes how string literals are read: do not set it"
            elif is_open(token):
                why = f"what begins with this {token[0]} is not closed: close it"
            if why:
                place = token.start()
                break
        return (text.count("\n", 0, place), why) if why else None

    @override
    def statement(self, text: str) -> str:
        # A blank after a colon means nothing to the server, and psql then puts in no variable of its own.
        done, parts, after = 0, list[str](), 0
        for token in tokens(text):
            if token[0] == ":" and token.start() >= after:
                after = token.end() + (text[token.end() : token.end() + 1] == ":")
                if after == token.end() and _VARIABLE.match(text, after):
                    parts += [text[done:after], " "]
                    done = after
        return "".join((*parts, text[done:]))

    @override
    def now(self) -> str:
        return "clock_timestamp() AT TIME ZONE 'UTC'"

    @override
    def require(self, problem: str, condition: str) -> str:
        raising = f"RAISE EXCEPTION USING MESSAGE = {self.literal(problem)};"
        return self._block(f"IF NOT ({condition}) THEN {raising} END IF;")

    @override
    def after(self, direction: str) -> str:
        return "SET CONSTRAINTS ALL IMMEDIATE;"

    @staticmethod
    def _block(statements: str) -> str:
        tag = "plan"
        while f"${tag}$" in statements:
            tag += "_"
        return f"DO ${tag}$ BEGIN {statements} END ${tag}$;"
