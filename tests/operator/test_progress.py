"""What long commands show while they work: on a terminal, after two seconds, gone at the end."""

import os
import re
import sys
import threading
from contextlib import closing
from itertools import groupby
from pathlib import Path
from types import SimpleNamespace

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from poker_therapist import get_pattern_storage
from poker_therapist.cli import screen
from poker_therapist.location import PostgreSQLLocation, SQLiteLocation, locate
from poker_therapist.migrations.progress import WATCHER, watched_by
from poker_therapist.postgresql.backend import AtomicPostgreSQLBackend
from poker_therapist.postgresql.backup import _rows_dumped
from poker_therapist.sqlite import backup
from poker_therapist.tables import TABLES
from tests.helpers import old_app
from tests.helpers.cli import command
from tests.helpers.project import Project
from tests.helpers.snapshots import connect, everything
from tests.helpers.watching import HIDDEN, watched

USER = 7


@pytest.fixture
def played(tmp_path: Path, migrated_file: Path) -> Path:
    """A folder with a database that holds one pattern, and a backup of it."""
    (tmp_path / "RexVoice.db").write_bytes(migrated_file.read_bytes())
    with get_pattern_storage(tmp_path / "RexVoice.db") as storage:
        storage.save_pattern(USER, "tilt", "after_bad_beat", "first")
    assert command("backup", "-o", "monday.backup", folder=tmp_path).code == 0
    return tmp_path


PLAYERS = [table.name for table in TABLES]
COPYING = ["copying RexVoice.db", "checking the copy of RexVoice.db"]


@pytest.mark.parametrize(
    ("words", "shown", "said"),
    [
        ("backup -o new.backup", COPYING, "new.backup"),
        (
            "restore monday.backup",
            ["checking monday.backup", *COPYING, "restoring monday.backup"],
            "restored {}/RexVoice.db",
        ),
        ("export 7 -o player.json", ["reading player 7"], None),
        ("forget 7 --yes", ["forgetting"], "user_patterns: 1 deleted"),
        ("purge", ["deleting expired rows"], "0 expired rows deleted"),
        ("rehearse", COPYING, "{}/RexVoice.db: nothing is pending, so there is nothing to rehearse."),
        (
            "copy RexVoice.db copy.db",
            [*(f"copying {name}" for name in reversed(PLAYERS)), *(f"comparing {name}" for name in PLAYERS)],
            "user_patterns: 1 copied",
        ),
    ],
)
def test_a_terminal_shows_what_is_being_done(
    words: str, shown: list[str], said: str | None, played: Path
) -> None:
    """By name, one after the other; at the end only the result is there, and the cursor."""
    ran = watched(*words.split(), folder=played)

    assert (ran.code, ran.shown) == (0, shown), ran.drawn
    if said:
        assert said.format(played) in ran.lines
    assert not any("━" in line or "0:00" in line for line in ran.lines)


def test_a_migration_shows_which_statement_runs(project: Project) -> None:
    """By its line, on both engines; what is printed meanwhile is where it would be without."""
    project.write_two()
    project.write(
        "003_fill_bets", "\nINSERT INTO bets VALUES (1);\n\nINSERT INTO bets VALUES (2);", "SELECT 1;"
    )
    options = ("--database", project.database, "--sources", "sql")
    ran = watched("apply", *options, folder=project.folder)
    undone = watched("rollback", "--yes", *options, folder=project.folder)

    assert ran.shown == [
        "applying 001_add_hands, line 1",
        "applying 002_add_bets, line 2",
        "applying 003_fill_bets, line 2",
        "applying 003_fill_bets, line 4",
    ]
    assert [line.partition(" in ")[0] for line in ran.lines][-3:] == [
        "applied 001_add_hands",
        "applied 002_add_bets",
        "applied 003_fill_bets",
    ]
    assert undone.shown[-1] == "rolling back 003_fill_bets, line 1"
    assert undone.lines[-1].startswith("rolled back 003_fill_bets in ")


@pytest.mark.parametrize(
    ("words", "after", "drawn"),
    [
        ("backup -o x.backup", 3600, False),
        ("apply --json", 0, False),
        ("rehearse --json", 0, False),
        ("backup -o x.backup", 0, True),
    ],
)
def test_nothing_is_drawn_for_a_short_command_or_a_program(
    words: str, after: float, drawn: bool, tmp_path: Path
) -> None:
    """Nor is a thread left, or the cursor hidden."""
    old_app.make(tmp_path / "RexVoice.db")
    ran = watched(*words.split(), folder=tmp_path, after=after)

    assert (ran.code, HIDDEN in ran.drawn, "\x1b" in ran.drawn) == (0, drawn, drawn)


def test_a_pipe_gets_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the environment wants colours in it; no thread is started, and nothing asked of a server."""
    threads = threading.active_count()
    monkeypatch.setattr(screen, "_SHORT", 0)
    monkeypatch.setenv("FORCE_COLOR", "1")
    with Path(os.devnull).open("w", encoding="utf-8") as pipe, monkeypatch.context() as patched:
        patched.setattr(sys, "stderr", pipe)
        with screen.progress("forgetting") as progress:
            progress("forgetting", 1, 2)

            assert (WATCHER.get(), threading.active_count()) == (None, threads)


@pytest.mark.parametrize("words", ["backup -o new.backup", "apply"])
def test_ctrl_c_leaves_the_terminal_as_it_was(words: str, tmp_path: Path) -> None:
    """What was shown is gone, the cursor is there, and the database as before."""
    old_app.make(tmp_path / "RexVoice.db")
    before = everything(tmp_path / "RexVoice.db")
    ran = watched(*words.split(), folder=tmp_path, keys="\x03")

    assert (ran.code, ran.shown, ran.lines[-1]) == (1, COPYING[:1], "Aborted.")
    assert not any("0:00" in line for line in ran.lines)
    assert everything(tmp_path / "RexVoice.db") == before
    assert [file.name for file in tmp_path.iterdir()] == ["RexVoice.db"]


def test_the_time_left_follows_what_is_done(tmp_path: Path) -> None:
    """From where a total is known; what is being done next begins anew, and the time goes on."""

    def work() -> None:
        clock = SimpleNamespace(now=100)
        screen.time = SimpleNamespace(monotonic=lambda: clock.now)  # type: ignore[assignment, attr-defined]
        with screen.progress() as progress:
            for clock.now, doing, done, total in (
                (100, "reading", 0, 0),
                (110, "copying", 0, 200),
                (120, "copying", 50, 200),
                (125, "copying", 150, 200),
                (130, "checking", 0, 0),
            ):
                progress(doing, done, total)

    ran = watched(folder=tmp_path, action=work)
    plain = re.sub(r"\x1b\[[0-9;?]*\w", "", ran.drawn)
    times = re.findall(r"(\w+ing) ━+[╸╺]?━* (0:\S+(?: \S+ left)?)", plain)

    assert [key for key, _ in groupby(times)] == [
        ("reading", "0:00:00"),
        ("copying", "0:00:10"),
        ("copying", "0:00:20, 0:00:30 left"),
        ("copying", "0:00:25, 0:00:05 left"),
        ("checking", "0:00:30"),
    ]


# What is known


def test_a_backup_in_steps_is_of_one_moment(played: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And ends, though somebody saves between any two of them: it would begin anew with each."""
    steps = list[tuple[int, int]]()

    def save(_doing: str, done: int, total: int) -> None:
        if total:
            steps.append((done, total))
            with get_pattern_storage(played / "RexVoice.db") as storage:
                storage.save_insight(USER, "advice", f"saved at step {len(steps)}")

    monkeypatch.setattr(backup, "PAGES", 1)
    with watched_by(save):
        made = backup.save_backup(SQLiteLocation(played / "RexVoice.db"))

    (_, total), *_ = steps
    assert steps == [(done, total) for done in range(1, total + 1)]
    with connect(made) as copy:
        assert copy.execute("SELECT count(*) FROM user_insights").fetchall() == [(0,)]


@pytest.mark.usefixtures("programs")
def test_a_dump_and_its_restore_show_what_is_being_done(migrated_postgresql_url: str, tmp_path: Path) -> None:
    """By the name of the database, and of the file."""
    name = conninfo_to_dict(migrated_postgresql_url)["dbname"]
    with get_pattern_storage(migrated_postgresql_url) as storage:
        storage.save_pattern(USER, "tilt", "after_bad_beat", "first")
    made = [f"backing up {name}", f"checking the backup of {name}"]
    rows, others = f"restoring {name}", f"restoring {name}: tables, constraints, indexes"
    to = ("-d", migrated_postgresql_url)

    dumped = watched("backup", *to, "-o", "monday.backup", folder=tmp_path)
    restored = watched("restore", "monday.backup", *to, folder=tmp_path)

    assert (dumped.code, dumped.shown, dumped.lines[-1]) == (0, made, "monday.backup")
    assert (restored.code, restored.shown[:3]) == (0, ["reading monday.backup", *made])
    assert set(restored.shown[3:]) == {rows, others}


def test_how_far_a_dump_is_the_server_says(migrated_postgresql_url: str) -> None:
    """The rows that COPY has read, of about as many as there are; without a total where that is too few."""
    told = list[tuple[int, int]]()
    with (
        closing(psycopg.connect(migrated_postgresql_url, autocommit=True)) as other,
        AtomicPostgreSQLBackend(_located(migrated_postgresql_url)) as backend,
        watched_by(lambda _, done, total: told.append((done, total))),
    ):
        other.execute(
            "INSERT INTO user_insights (user_id, insight_type, insight_data, importance, created_at) "
            "SELECT n, 'advice', to_json(repeat('x', 200)), 0.5, now() FROM generate_series(1, 50000) AS n"
        )
        other.execute("ANALYZE user_insights")
        tell = _rows_dumped(backend, [("TABLE", "public.user_insights"), ("TABLE", "public.user_patterns")])
        with other.cursor().copy("COPY user_insights TO STDOUT") as copy:
            copy.read()
            while len(told) < 10_000 and not any(done for done, _ in told):  # until the server says so
                tell()
        assert 0 < told[-1][0] < 50_000 == told[-1][1]


def _located(url: str) -> PostgreSQLLocation:
    location = locate(url)
    assert isinstance(location, PostgreSQLLocation)
    return location
