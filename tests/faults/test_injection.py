"""Text that could be taken for SQL, or for anything else, is text: wherever a caller may pass one."""

import functools
import inspect
import json
import re
import shutil
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poker_therapist import InvalidInput, NewContext, PatternStorage, PokerTherapistError, get_pattern_storage
from poker_therapist.errors import escaped
from poker_therapist.location import locate
from poker_therapist.migrations.scaffold import new_migration
from poker_therapist.values import JSON, MAX_KEY_LENGTH
from tests.helpers import players
from tests.helpers.cli import command
from tests.helpers.engines import execute, fetch_all
from tests.helpers.snapshots import everything

PAYLOADS = [
    # Ends of a literal, and what could follow
    "'; DROP TABLE user_patterns; --",
    "'); DELETE FROM user_insights; --",
    "', 0, 0, 0); DELETE FROM conversation_context; --",
    "' OR '1'='1",
    "' OR user_id <> 7 --",
    "' UNION SELECT 1, sql, 3, 4, 5, 6 FROM sqlite_master --",
    "' UNION SELECT usename, passwd FROM pg_shadow --",
    '" OR ""="',
    '"; DROP TABLE user_patterns; --',
    "1; ATTACH DATABASE 'evil.db' AS evil",
    "1; COMMIT; VACUUM",
    "x'; COPY user_patterns TO PROGRAM 'id'; --",
    "' || (SELECT pattern_value FROM user_patterns LIMIT 1) || '",
    "admin'/*",
    "*/ OR 1=1 /*",
    "-- a comment",
    "# a comment",
    "$$; DROP TABLE user_patterns; $$",
    "$tag$ $tag$",
    "E'\\'' OR 1=1",
    "U&'\\0027'",
    # Quotes
    "'",
    "''",
    '"',
    "`",
    "[",
    "]",
    "\u2018\u2019\u201c\u201d\u02bc\uff07\u00b4",
    "\u0127 OR 1=1",  # its last byte is a quote
    # Escapes and line ends
    "\\",
    "\\'",
    "\\\\'; --",
    "\\u0000",
    "\\x27",
    "\r\n\t",
    "\x1a\x7f\x85",
    # Markers of parameters and formats
    "?",
    "?1",
    "$1",
    ":user_id",
    "@user_id",
    "%s",
    "%(user_id)s",
    "%%",
    "{}",
    "{0.__class__}",
    "{{user_id}}",
    # Wildcards, words, numbers, JSON, markup, paths
    "%",
    "_",
    "*",
    "NULL",
    "true",
    "0",
    "-1",
    "1e309",
    '{"$ne": null}',
    '"benign"',
    "benign ",
    "Benign",
    "ben\u00adign",
    "[red]benign[/red]",
    "[/]",
    "\ufeff",
    "\u202egnineb",
    "\U0001f0a1" * 100,
    "../../RexVoice.db",
    "; rm -rf x #",
    "x" * 10_000,
]
# Refused, and nothing is written.
REFUSED = ["", "\0", "benign\0'; --", "half \ud800 of a character"]


# Every place where the storage takes a text


def takes_text(annotation: Any) -> bool:
    """Return whether a parameter is a text, a value that may be one, or holds some."""
    return annotation is str or str in typing.get_args(annotation) or annotation in WRAPPED


@functools.cache
def parameters_of(method: Callable[..., Any]) -> list[inspect.Parameter]:
    """Return the parameters of a method, but for the storage; found once for thousands of calls."""
    return list(inspect.signature(method, eval_str=True).parameters.values())[1:]


# What takes several texts, and how one is passed.
WRAPPED: dict[Any, Callable[[str], Any]] = {
    Mapping[str, JSON]: lambda text: {text: "benign"},
    Iterable[NewContext]: lambda text: [{"key": text, "value": "benign"}],
}
HARMLESS: dict[Any, Any] = {float: 0.5}


def places() -> list[tuple[str, str]]:
    """Return the names of all public methods that take a text, and of the parameters that do."""
    return [
        (name, parameter.name)
        for name, method in inspect.getmembers(PatternStorage, inspect.isfunction)
        if not name.startswith("_")
        for parameter in parameters_of(method)
        if takes_text(parameter.annotation)
    ]


SAVES = [place for place in places() if place[0].startswith("save_")]
OTHERS = [place for place in places() if place not in SAVES]


def call(storage: PatternStorage, place: tuple[str, str], user: int, text: str) -> Any:
    """Call a method with a text in one place, and something harmless wherever it needs something."""
    name, where = place
    arguments: dict[str, Any] = {}
    for parameter in parameters_of(getattr(type(storage), name)):
        kind = parameter.annotation
        if parameter.name == where or parameter.default is parameter.empty:
            given = HARMLESS | {int: user}
            assert kind in given or takes_text(kind), f"{parameter} of {name}?"
            pass_text = WRAPPED.get(kind, str)
            arguments[parameter.name] = given.get(
                kind, pass_text(text if parameter.name == where else "benign")
            )
    return getattr(storage, name)(**arguments)


class Judge:
    """Tries one text in every place of a storage, and sees what it does to the rest."""

    def __init__(self, storage: PatternStorage) -> None:
        self.storage = storage
        self.calls = 0
        players.fill(storage, 8)
        for place in SAVES:
            call(storage, place, 7, "benign")
        self.before = self._rows()

    def try_everywhere(self, text: str) -> None:
        """Fail if a text finds, changes or breaks anything but what was saved under it."""
        for place in OTHERS:
            if self._accepts(place, text, user=7) and text != "benign":
                nothing = call(self.storage, place, 7, "somebody's")
                assert call(self.storage, place, 7, text) == nothing, f"{place} with {text!a}"
                assert self._rows() == self.before
        for place in SAVES:
            self._save(place, text)
            for table in players.TABLES:
                execute(self.storage, f"DELETE FROM {table} WHERE user_id = 1000")
            assert self._rows() == self.before

    def _accepts(self, place: tuple[str, str], text: str, user: int) -> bool:
        """Call, and return whether it was not refused; only what an engine cannot hold may be."""
        self.calls += 1
        if "session" in place[1] and text == "":
            return False  # no session
        is_value = "value" in place[1] or "data" in place[1]
        fits = is_unicode(text) and (is_value or ("\0" not in text and text != ""))
        if not is_value and place[0].startswith("save"):
            fits = fits and len(text) <= MAX_KEY_LENGTH
        try:
            call(self.storage, place, user, text)
        except InvalidInput:
            assert not fits, f"{place} with {text!a}"
        else:
            assert fits, f"{place} with {text!a}"
        return fits

    def _save(self, place: tuple[str, str], text: str) -> None:
        """Save a text and read it back, by every method that takes it in the same place."""
        is_saved = self._accepts(place, text, user=1000)
        rows = self._rows()
        assert rows >= self.before
        assert len(rows - self.before) == is_saved
        for row in rows - self.before:
            assert 1000 in row
            assert text in row or text in map(decoded, row), f"{place} with {text!a}"
            for other in OTHERS:
                if other[1] == place[1]:
                    found = call(self.storage, other, 1000, text)
                    changes = other[0].startswith(("clear", "delete", "set"))
                    assert found == 1 if changes else "benign" in repr(found), other
                    if changes:  # for the next one
                        call(self.storage, place, 1000, text)

    def _rows(self) -> set[tuple[Any, ...]]:
        return {
            (table, *row)
            for table in players.TABLES
            for row in fetch_all(self.storage, f"SELECT * FROM {table}")
        }


def is_unicode(text: str) -> bool:
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


def decoded(value: Any) -> Any:
    try:
        return json.loads(value)
    except (TypeError, ValueError):
        return None


@pytest.fixture(scope="module")
def judge(module_database: str) -> Iterator[Judge]:
    with get_pattern_storage(module_database) as storage:
        yield Judge(storage)


def test_every_method_that_takes_a_text_is_tried() -> None:
    """They are found by their signatures, so that a new one is tried, too; these are there at least."""
    assert {
        ("save_pattern", "pattern_type"),
        ("save_pattern", "pattern_key"),
        ("save_pattern", "pattern_value"),
        ("get_pattern", "pattern_type"),
        ("get_pattern", "pattern_key"),
        ("get_patterns_by_type", "pattern_type"),
        ("save_context", "context_key"),
        ("save_context", "context_value"),
        ("save_context", "session_id"),
        ("get_context", "context_key"),
        ("get_context", "session_id"),
        ("save_insight", "insight_type"),
        ("save_insight", "insight_data"),
        ("get_insights", "insight_type"),
        ("recall", "session_id"),
        ("clear_user_context", "session_id"),
        ("clear_user_insights", "insight_type"),
        ("delete_pattern", "pattern_key"),
        ("save_patterns", "patterns"),
        ("save_contexts", "items"),
    } <= set(places())


@pytest.mark.slow
def test_a_text_that_looks_like_sql_is_saved_found_and_changes_nothing_else(
    engine: str, module_database: str, judge: Judge, report: Callable[[str], None]
) -> None:
    """In every parameter that takes a text: exactly its own row; what no engine can hold is refused."""
    before, calls = everything(module_database).schema, judge.calls
    for text in (*PAYLOADS, *REFUSED):
        judge.try_everywhere(text)

    assert everything(module_database).schema == before
    report(
        f"{engine}: {len(PAYLOADS) + len(REFUSED)} texts that look like SQL in {len(places())} parameters, "
        f"{judge.calls - calls:,} calls: each is text, no other row or table changed"
    )


any_text = st.text(st.characters(exclude_categories=()))


@pytest.mark.slow
@given(any_text | st.builds("{}{}{}".format, any_text, st.sampled_from(PAYLOADS), any_text))
@settings(max_examples=60, derandomize=True, deadline=None)
def test_any_text_is_saved_found_and_changes_nothing_else(judge: Judge, text: str) -> None:
    """Alone, and with one that looks like SQL in the middle of it."""
    judge.try_everywhere(text)


# Names of databases and files, and what stands in a URL

FILE_NAMES = [text for text in PAYLOADS if "/" not in text and len(text.encode()) < 200]


@pytest.mark.slow
def test_a_name_that_looks_like_something_else_names_a_file(
    tmp_path: Path, report: Callable[[str], None]
) -> None:
    """Of a database, a backup, an export: every command finds it, and makes or changes nothing beside it."""
    made = players.make(tmp_path / "RexVoice.db")
    for number, name in enumerate(FILE_NAMES):
        folder = tmp_path / str(number)
        folder.mkdir()
        database = Path(shutil.copy(made, folder / name))
        backup, export = (folder / f"{name}{ending}" for ending in (".backup", ".json"))
        for arguments in (
            ("backup", "--output", backup),
            ("export", "7", "--output", export),
            ("forget", "7", "--yes"),
            ("status",),
        ):
            ran = command(*arguments, "--database", database, folder=folder)
            assert (ran.code, ran.error) == (0, ""), f"{arguments[0]} with {name!a}"

        shown = escaped(str(database).splitlines()[0])  # a line end is not shown as it is
        assert shown in ran.out
        assert {path.name for path in folder.iterdir()} - {f"{name}-wal", f"{name}-shm"} == {
            name,
            backup.name,
            export.name,
        }
        assert not players.is_known(database)
        assert players.is_known(backup)
        assert json.loads(export.read_text())["user_id"] == 7

    assert players.is_known(made)
    report(
        f"{len(FILE_NAMES)} odd names of a database, a backup, an export: each command found its file alone"
    )


def test_a_description_that_looks_like_something_else_becomes_a_plain_name(
    tmp_path: Path, report: Callable[[str], None]
) -> None:
    """The files of a new migration, in their folders; or it is refused."""
    made = 0
    folders = [tmp_path / "sql_migrations" / name for name in ("sqlite", "postgresql")]
    for folder in folders:
        folder.mkdir(parents=True)
    for text in PAYLOADS:
        with suppress(InvalidInput):
            new_migration(text, folders)
            made += 1
    files = [path for path in tmp_path.rglob("*") if path.is_file()]

    assert len(files) == 4 * made > 0
    assert all(re.fullmatch(r"\d{3}_[a-z0-9_]+(\.rollback)?\.sql", path.name) for path in files)
    assert {path.parent.name for path in files} == {"sqlite", "postgresql"}
    report(f"{len(PAYLOADS)} odd descriptions of a migration: {made} plain names, the others refused")


@pytest.mark.parametrize("scheme", ["sqlite:///game.db", "postgresql://localhost/game"])
def test_no_option_of_a_url_takes_a_text_that_looks_like_sql(
    scheme: str, report: Callable[[str], None]
) -> None:
    """Each of our own is a number or a word; of others SQLite has none, and PostgreSQL's are libpq's."""
    own = {
        "sqlite": ["timeout", "synchronous", "backups", "journal_mode"],
        "postgresql": ["timeout", "connections", "schema"],
    }
    tried = 0
    for option in own[scheme.partition(":")[0]]:
        for text in PAYLOADS:
            if not re.fullmatch(r"\d|[A-Za-z_]\w{0,62}", text):  # a number, a name of a schema
                tried += 1
                with pytest.raises(InvalidInput, match=option):
                    locate(f"{scheme}?{option}={quote(text)}")
    for text in PAYLOADS:
        tried += 1
        with pytest.raises(InvalidInput):
            locate(f"{scheme}?{quote(text)}=1")
    report(f"{scheme.partition(':')[0]}: {tried} odd options of a URL refused")


def test_a_server_s_database_with_an_odd_name_is_one_that_is_not_there(
    postgresql_url: str, report: Callable[[str], None]
) -> None:
    server = postgresql_url.rpartition("/")
    options = server[2].partition("?")[2]
    for text in PAYLOADS:
        with pytest.raises(PokerTherapistError):
            get_pattern_storage(f"{server[0]}/{quote(text, safe='')}?{options}").close()
    report(f"postgresql: {len(PAYLOADS)} odd names of a database: not there, each by an error of ours")
