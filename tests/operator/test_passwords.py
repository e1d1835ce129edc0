"""No password is shown: whatever a URL looks like, in all that is printed, logged and raised."""

import logging
import os
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yoyo
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from yoyo.connections import parse_uri

from poker_therapist import get_pattern_storage
from poker_therapist.errors import InvalidInput
from poker_therapist.location import hide_passwords, locate, redacted
from tests.helpers.cli import command
from tests.helpers.databases import Databases
from tests.helpers.postgresql import yoyo_in_child

# Nothing says these by chance. A password is made of both, so that a half of it is found, too.
HALVES = ("Wq7xKaTz", "Zp9vMbQr")
SEPARATORS = (
    *(
        "",
        "%",
        "%zz",
        "%00",
        "%2F",
        "%40",
        "%25",
        " ",
        "/",
        "//",
        "/../",
        "[",
        "]",
        "@",
        "@@",
        "#",
        "?",
        "&",
        "=",
    ),
    *(
        ":",
        "\\",
        "\n",
        "\t",
        "\x1b[31m",
        "'",
        '"',
        "ü",
        "\u2100",
        "\u202e",
        "\udcff",
        "%3A",
        "?timeout=",
        "://",
    ),
    *("?password=", ",", "+", "${HOME}", "{0}", "\x7f"),
)
SCHEMES = (
    *("postgresql", "postgres", "POSTGRESQL", "postgresql+atomic", "postgresql+psycopg", "PostGres", "mysql"),
    *("sqlite", "SQLITE", "sqlite+atomic", "post_gres", "http"),
)
# Nobody listens there.
PLACE = "127.0.0.1:1"
SHAPES = (
    *(
        "{scheme}://rex:{secret}@{place}/db",
        "{scheme}://rex:{secret}@{place}",
        "{scheme}:///rex:{secret}@h/db",
    ),
    *(
        "{scheme}://:{secret}@{place}/db",
        "{scheme}:/rex:{secret}@{place}/db",
        "{scheme}:rex:{secret}@{place}",
    ),
    *("rex:{secret}@{place}/db", "//rex:{secret}@{place}/db", " {scheme}://rex:{secret}@{place}/db"),
    *("{scheme}://{place}/db?password={secret}", "{scheme}://{place}/db?user=a&sslpassword={secret}"),
    *("{scheme}://{place}/db?pass={secret}", "{scheme}://{place}/db?Password={secret}&timeout=soon"),
    *("{scheme}://{place}/db?%70assword={secret}", "{scheme}://{place}/db?password={secret}#part"),
    *(
        "{scheme}://{place}/db?dbname=postgresql://rex:{secret}@h/x",
        "host=127.0.0.1 port=1 password={secret}",
    ),
    *("password='{secret}' host=127.0.0.1", "{scheme}://rex:{secret}%40{place}/db"),
    *(
        "{scheme}://rex:{secret}@[::1/db",
        "{scheme}://rex:{secret}@{place}:no/db",
        "'{scheme}://rex:{secret}@h'",
    ),
)
COMMANDS = (
    *(
        ("status", "-d", "{}"),
        ("rehearse", "-d", "{}"),
        ("backup", "-d", "{}"),
        ("backup", "--list", "-d", "{}"),
    ),
    *(("purge", "-d", "{}"), ("export", "1", "-d", "{}"), ("forget", "1", "--yes", "-d", "{}")),
    *(
        ("status", "--json", "--database={}"),
        ("restore", "no.db", "-d", "{}"),
        ("restore", "{}", "-d", "x.db"),
    ),
    *(("copy", "{}", "new.db"), ("copy", "old.db", "{}"), ("backup", "-d", "x.db", "-o", "{}")),
    *(("status", "{}"), ("export", "{}"), ("status", "-c", "{}"), ("{}",), ("--{}",), ("status", "--to={}")),
    *(("export", "1", "-d", "x.db", "-o{}"), ("rehearse", "-d", "x.db", "--to", "{}")),
)
urls = st.builds(
    lambda shape, scheme, separators: shape.format(
        scheme=scheme, place=PLACE, secret=HALVES[0] + "".join(separators) + HALVES[1]
    ),
    st.sampled_from(SHAPES),
    st.sampled_from(SCHEMES),
    st.lists(st.sampled_from(SEPARATORS), min_size=1, max_size=3),
)


def shows(text: str) -> bool:
    """Return whether a half of the password is in a text."""
    return any(half.lower() in text.lower() for half in HALVES)


def told(error: BaseException | None) -> Iterator[str]:
    """Give all that an error, and each below it, says in any way."""
    if error is None:
        return
    yield from traceback.format_exception(error)
    yield from (str(error), repr(error))
    yield from told(error.__cause__)
    yield from told(error.__context__)


@contextmanager
def all_logged() -> Iterator[list[str]]:
    """Keep what is logged, yoyo's and psycopg's included, to the last detail."""
    lines: list[str] = []

    class Keeper(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(self.format(record))

    keeper, root = Keeper(), logging.getLogger()
    level = root.level
    root.addHandler(keeper)
    root.setLevel(logging.DEBUG)
    try:
        yield lines
    finally:
        root.removeHandler(keeper)
        root.setLevel(level)


@pytest.mark.slow
@settings(
    max_examples=150,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(url=urls, words=st.sampled_from(COMMANDS))
def test_no_command_shows_a_password(
    url: str, words: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """In what it prints and logs; and no error of the driver or of Python ends it."""
    folder = tmp_path_factory.mktemp("commands")
    with all_logged() as logged:
        ran = command(*(word.replace("{}", url) for word in words), folder=folder)

    assert not shows(ran.out + ran.error + ran.database + "".join(logged)), (url, ran)


@pytest.mark.parametrize("call", [locate, get_pattern_storage, redacted])
@settings(max_examples=300, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
@given(url=urls | urls.map(lambda url: url.replace("Zp9", "\0Zp9", 1)))
def test_no_call_of_the_library_shows_a_password(
    url: str, call: Callable[[str], object], tmp_path: Path
) -> None:
    """In what it returns, logs or raises, whatever is below the error."""
    said: list[str] = []
    with pytest.MonkeyPatch.context() as patched, all_logged() as logged:
        patched.chdir(tmp_path)
        try:
            said.append(repr(call(url)))
        except Exception as error:
            said += told(error)

    assert not shows("".join(said + logged)), url


@settings(max_examples=200, derandomize=True, deadline=None)
@given(url=urls.filter(lambda url: "+atomic:" in url and not (url.startswith("sqlite") and "#" in url)))
def test_no_backend_shows_a_password(url: str) -> None:
    """What yoyo has parsed; what it cannot parse, it says itself, before it loads a backend.

    It drops what follows a #. What is left of an SQLite URL may be any path.
    """
    try:
        parse_uri(url)
    except Exception:
        return
    said: list[str] = []
    with all_logged() as logged:
        try:
            with yoyo.get_backend(url) as backend:
                said += [repr(backend), repr(backend.location), backend.name]
                backend.connection.execute("SELECT 1")
        except Exception as error:
            said += told(error)

    assert not shows("".join(said + logged)), url


@pytest.mark.parametrize(
    "secret",
    ["{}{}", "{}%2F{}", "{}%zz{}", "{}%00{}", "{} {}", "{}@{}", "{}:{}", "{}%40{}", "{}\x1bc{}", "{}ü{}"],
)
@pytest.mark.parametrize(
    "url",
    [
        f"postgresql+atomic://rex:{{}}@{PLACE}/db",
        f"postgresql+atomic://rex@{PLACE}/db?password={{}}",
        "sqlite+atomic://rex:{}@h/x.db",
        "sqlite+atomic:///x/y.db?password={}",
    ],
)
def test_yoyo_with_our_backend_shows_no_password(url: str, secret: str, tmp_path: Path) -> None:
    """By its program, with tracebacks as well."""
    (tmp_path / "001_a.sql").write_text("SELECT 1;\n")
    words = ["apply", "--batch", "-vvv", "--no-config-file", "--database", url.format(secret.format(*HALVES))]
    ran = yoyo_in_child(*words, ".", folder=tmp_path)

    assert ran.code == 1
    assert "yoyo: " in ran.error
    assert not shows(ran.out + ran.error)


def test_the_password_of_the_environment_is_not_shown(
    databases: Databases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither where there is no server nor where there is one."""
    monkeypatch.setenv("PGPASSWORD", "".join(HALVES))
    with databases.fresh() as url, all_logged() as logged:
        for database in (f"postgresql://{PLACE}/db", url):
            for words in COMMANDS[:8]:
                ran = command(*(word.replace("{}", database) for word in words), folder=tmp_path)
                logged.append(str(ran))

    assert not shows("".join(logged))


@pytest.mark.parametrize(
    ("given", "shown"),
    {
        "RexVoice.db": "RexVoice.db",
        "sqlite:////data/RexVoice.db?timeout=5": "sqlite:////data/RexVoice.db?timeout=5",
        "postgresql://h/db": "postgresql://h/db",
        "postgresql://rex:s3cret@h/db": "postgresql://…",
        "postgresql://h/db?password=s3cret": "postgresql://…",
        "rex:s3cret@h": "rex:…",
        "host=h password=s3cret": "…",
        "sqlite://rex:s3cret": "sqlite://…",
        "sqlite:///rex:s3cret@h": "sqlite:///…",
        "/rex:s3cret@h": "…",
        # No colon before the @, and so no password.
        "/data/team@home/RexVoice.db": "/data/team@home/RexVoice.db",
        "monday@home.backup": "monday@home.backup",
        "sqlite+atomic:////data/team@home/x.db": "sqlite+atomic:////data/team@home/x.db",
        "sqlite:///C:/team@home/x.db": "sqlite:///C:/team@home/x.db",
        "C:\\team@home\\x.db": "C:\\team@home\\x.db",
        "postgresql://rex@h/db": "postgresql://rex@h/db",
    }.items(),
)
def test_what_may_hold_a_password_is_hidden(given: str, shown: str) -> None:
    """All but the scheme of it; everything else is shown."""
    assert redacted(given) == shown
    assert (hide_passwords(given, [given]) == given) is (shown == given)


@pytest.mark.parametrize(
    "name",
    ["rex:s3cret@h/db", "//rex:s3cret@h/db", "host=h password=s3cret", " postgresql://rex:s3cret@h/db"],
)
def test_a_server_without_its_scheme_is_no_path(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is refused; a file of that name is reached by ./ before it, or by its whole path."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidInput, match=r"write postgresql:// before it, or \./ before"):
        locate(name)

    assert locate(f"./{name}").name == os.path.abspath(f"./{name}")  # noqa: PTH100
    assert locate(f"C:\\users\\{name}" if os.name == "nt" else f"/x/{name}").name.endswith(name[-8:])
