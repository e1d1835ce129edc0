"""What the earlier app's module was: the same names, calls and meanings, and where the storage says it is."""

import ntpath
import os
from collections.abc import Callable
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import psycopg
import pytest

from poker_therapist import InvalidInput, location
from poker_therapist.location import PostgreSQLLocation, SQLiteLocation, locate
from poker_therapist.sqlite.connect import uri
from poker_therapist.storage import PatternStorage, get_pattern_storage
from tests.helpers.clock import Clock
from tests.helpers.snapshots import applied

USER = 7

WAYS: dict[str, Callable[[Any], PatternStorage]] = {
    "PatternStorage(x)": PatternStorage,
    "PatternStorage(db_path=x)": lambda name: PatternStorage(db_path=name),
    "get_pattern_storage(x)": get_pattern_storage,
    "get_pattern_storage(db_path=x)": lambda name: get_pattern_storage(db_path=name),
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("kind", [str, Path])
def test_every_way_of_the_earlier_app_opens_and_migrates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: Callable[[Any], PatternStorage], kind: type
) -> None:
    monkeypatch.chdir(tmp_path)
    with way(kind("x.db")) as storage:
        storage.save_pattern(USER, "tilt", "bad_beat", 1)

        assert type(storage) is PatternStorage
        assert (type(storage.db_path), storage.db_path) == (type(Path()), Path("x.db"))
        assert storage.get_pattern(USER, "tilt", "bad_beat") == 1

    assert applied(tmp_path / "x.db")


@pytest.mark.parametrize("way", [PatternStorage, get_pattern_storage])
def test_without_a_name_it_is_rexvoice_db_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: Callable[[], PatternStorage]
) -> None:
    monkeypatch.chdir(tmp_path)
    with way() as storage:
        assert storage.db_path == Path("RexVoice.db")

    assert (tmp_path / "RexVoice.db").is_file()


def test_the_storage_of_a_server_says_a_url_with_which_it_can_be_opened_again(migrated: str) -> None:
    with get_pattern_storage(migrated) as storage:
        storage.save_pattern(USER, "tilt", "bad_beat", 1)
        with PatternStorage(db_path=storage.db_path) as again:
            assert again.get_pattern(USER, "tilt", "bad_beat") == 1


def test_it_ends_in_a_folder_that_was_left_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was opened is the file of then, whatever `db_path` would name now."""
    monkeypatch.chdir(tmp_path)
    with PatternStorage("x.db") as storage:
        (tmp_path / "other").mkdir()
        monkeypatch.chdir(tmp_path / "other")
        storage.save_pattern(USER, "tilt", "bad_beat", 1)

    assert list((tmp_path / "other").iterdir()) == []


# URLs of servers

URLS = [
    ("postgresql://", "postgresql:///"),
    ("postgresql://u:s3cret@h/x", "postgresql://u@h/x"),
    ("postgres://u@h", "postgresql://u@h/"),
    ("postgresql://u:s3cret@[::1]:5433/x", "postgresql://u@[::1]:5433/x"),
    ("postgresql://[fe80::1%25eth0]/x", "postgresql://[fe80::1%25eth0]/x"),
    ("postgresql://u:s3cret@a:1,[::1]:2,c/x", "postgresql://u@a:1,[::1]:2,c/x"),
    ("postgresql://a,b/x?port=5433", "postgresql://a:5433,b:5433/x"),
    ("postgresql://h:5432/x", "postgresql://h:5432/x"),
    ("postgresql:///x?port=5433", "postgresql://:5433/x"),
    ("postgresql://my%20user:s3cret@h/my%20db%2F%3F%23", "postgresql://my%20user@h/my%20db%2F%3F%23"),
    ("postgresql://u%40v%3A@h/x", "postgresql://u%40v%3A@h/x"),
    ("postgresql:///x?host=/a%20folder,/b&port=1,2", "postgresql:///x?host=/a%20folder,/b&port=1,2"),
    ("postgresql:///x?host=@abstract", "postgresql:///x?host=%40abstract"),
    ("postgresql://h/x?password=s3cret&sslpassword=s3cret", "postgresql://h/x"),
    ("postgresql://h/x?passfile=/a%20b", "postgresql://h/x?passfile=/a%20b"),
    ("postgresql://h/x?schema=Players&timeout=0.25&connections=3&sslmode=require", None),
    ("postgresql://h/x?options=-c%20a%3Db%26c&application_name=a%2Bb%25", None),
    ("postgresql://h/x?timeout=123456.789", "postgresql://h/x?timeout=123456.789"),
]


@pytest.mark.parametrize(("given", "expected"), URLS, ids=[given for given, _ in URLS])
def test_the_url_of_a_server_is_complete_quoted_and_without_a_password(
    given: str, expected: str | None
) -> None:
    first = locate(given)
    assert isinstance(first, PostgreSQLLocation)
    again = locate(first.url)
    assert isinstance(again, PostgreSQLLocation)

    def settings(one: PostgreSQLLocation) -> dict[str, Any]:
        found = psycopg.conninfo.conninfo_to_dict(one.conninfo)
        hosts = str(found.get("host", "")).split(",")
        if "port" in found and "," not in str(found["port"]):  # one is for all hosts
            found["port"] = ",".join([str(found["port"])] * len(hosts))
        return {name: value for name, value in found.items() if name not in ("password", "sslpassword")}

    assert settings(again) == settings(first)
    assert (again.schema, again.timeout, again.connections) == (
        first.schema,
        first.timeout,
        first.connections,
    )
    assert again.url == first.url == first.db_path == (expected or first.url)
    assert "s3cret" not in f"{first.url} {first.name} {first!r}"


def test_a_port_is_said_though_it_is_the_usual_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it the URL would be another server's where PGPORT is set."""
    monkeypatch.setenv("PGPORT", "7")

    assert locate("postgresql://h:5432/x").db_path == "postgresql://h:5432/x"
    assert locate("postgresql://h/x").name == "postgresql://h:7/x"


def test_a_user_is_no_name_of_a_database(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where PGDATABASE is set, a URL without a name is of that."""
    monkeypatch.setenv("PGDATABASE", "other")

    assert locate("postgresql://u@h").db_path == "postgresql://u@h/"
    assert locate("postgresql://u@h").name == "postgresql://h/other"


# Meanings


@pytest.mark.parametrize("minutes", [None, 0, 0.0, -0.0])
def test_none_and_zero_minutes_never_expire(
    storage: PatternStorage, clock: Clock, minutes: float | None
) -> None:
    storage.save_context(USER, "mood", "calm", expires_minutes=minutes)
    clock.advance(days=365_000)

    assert storage.get_context(USER, "mood") == ["calm"]
    assert storage.purge_expired() == 0


@pytest.mark.parametrize("minutes", [-1, -0.001])
def test_less_than_zero_minutes_have_expired(storage: PatternStorage, clock: Clock, minutes: float) -> None:
    storage.save_context(USER, "mood", "calm", expires_minutes=minutes)

    assert clock.moment
    assert storage.get_context(USER, "mood") == []
    assert storage.purge_expired() == 1


def test_an_empty_session_is_no_session(storage: PatternStorage) -> None:
    storage.save_context(USER, "mood", "of none", session_id="")
    storage.save_context(USER, "mood", "of monday", session_id="monday")

    assert [row["session_id"] for row in storage.export_user(USER)["context"]] == [None, "monday"]
    assert storage.get_context(USER, "mood", session_id="") == ["of monday", "of none"]
    assert len(storage.recall(USER, session_id="")["context"]) == 2
    assert storage.clear_user_context(USER, session_id="") == 2


# Paths of Windows


@pytest.fixture
def on_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths are what they are on Windows, in the folder C:\\players."""
    monkeypatch.setattr(location, "Path", PureWindowsPath)
    monkeypatch.setattr(os.path, "abspath", lambda name: ntpath.normpath(ntpath.join("C:\\players", name)))


@pytest.mark.usefixtures("on_windows")
@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("x.db", r"C:\players\x.db"),
        (r"C:\poker\x.db", r"C:\poker\x.db"),
        ("D:/poker/x.db", r"D:\poker\x.db"),
        (r"..\x.db", r"C:\x.db"),
        (r"\\server\share\x.db", r"\\server\share\x.db"),
        ("sqlite:///x.db", r"C:\players\x.db"),
        ("sqlite:///C:/poker/x.db?timeout=5", r"C:\poker\x.db"),
        (r"sqlite:///C:\poker\x.db", r"C:\poker\x.db"),
        ("sqlite:///C:/my%20poker/x.db", r"C:\my poker\x.db"),
        ("sqlite+atomic:///D:/x.db", r"D:\x.db"),
        ("sqlite://///server/share/x.db", r"\\server\share\x.db"),
    ],
)
def test_a_path_or_url_of_windows_names_the_file(name: str, path: str) -> None:
    found = locate(name)

    assert isinstance(found, SQLiteLocation)
    assert str(found.path) == path


@pytest.mark.parametrize(
    "name", ["sqlite:C:/x.db", "sqlite://C:/x.db", "sqlite:/C:/x.db", "sqlite:x.db", r"sqlite:C:\x.db"]
)
def test_too_few_slashes_are_refused_with_advice_that_holds_for_a_drive(name: str) -> None:
    with pytest.raises(InvalidInput, match=r"sqlite:///C:/x\.db") as refusal:
        locate(name)

    assert "four slashes" not in str(refusal.value) or "drive" in str(refusal.value)


def test_the_uri_of_a_file_names_no_server() -> None:
    """SQLite refuses a URI with an authority, as `Path.as_uri` gives one to a share."""
    assert uri(PureWindowsPath(r"C:\my poker\x#?%.db"), "mode=rw") == (
        "file:///C:/my%20poker/x%23%3F%25.db?mode=rw"
    )
    assert uri(PureWindowsPath(r"\\server\share\x.db"), "mode=ro") == "file:////server/share/x.db?mode=ro"
    assert uri(PurePosixPath("/a b"), "mode=ro") == "file:///a%20b?mode=ro"
    assert uri(PurePosixPath(os.fsdecode(b"/\xff")), "mode=ro") == "file:///%FF?mode=ro"
