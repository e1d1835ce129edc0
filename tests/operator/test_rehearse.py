"""`poker-therapist rehearse`: on a copy, with nothing left behind, in flat memory, for people and scripts."""

import os
import re
import signal
import sqlite3
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from poker_therapist import MigrationEdited, get_pattern_storage
from poker_therapist.location import SQLiteLocation, locate
from poker_therapist.migrations.rehearse import Verdict
from poker_therapist.schema import rehearse
from poker_therapist.testing import run_killed_at
from tests.helpers import old_app
from tests.helpers.cli import command, in_child, refused, state_of
from tests.helpers.engines import run_sql
from tests.helpers.migrating import IDS, up
from tests.helpers.project import Project
from tests.helpers.scripts import run_script


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A database of the earlier app with rows that the rules of 003 refuse."""
    path = tmp_path / "RexVoice.db"
    old_app.make(path)
    old_app.add_odd_rows(path)
    return path


@pytest.fixture
def three(tmp_path: Path) -> Project:
    """Three pending migrations: the second fails where there is a river."""
    return with_three_migrations(Project(tmp_path / "project"))


@pytest.fixture
def either(project: Project, engine: str, request: pytest.FixtureRequest) -> Project:
    """The same, on each engine."""
    if engine == "postgresql":
        request.getfixturevalue("own_copies")
    return with_three_migrations(project)


def with_three_migrations(project: Project) -> Project:
    project.run_sql("CREATE TABLE hands (id INTEGER PRIMARY KEY, note TEXT NOT NULL)")
    project.write("001_add_bets", "CREATE TABLE bets (id INTEGER);", "DROP TABLE bets;")
    project.write(
        "002_fill_bets",
        "-- depends: 001_add_bets\nINSERT INTO hands SELECT id, NULL FROM hands WHERE note = 'river';\n"
        "INSERT INTO bets SELECT id FROM hands;",
        "DELETE FROM bets;",
    )
    project.write(
        "003_add_pots",
        "-- depends: 002_fill_bets\nALTER TABLE bets ADD COLUMN pot INTEGER;",
        "ALTER TABLE bets DROP COLUMN pot;",
    )
    return project


def test_an_old_database_is_rehearsed_from_start_to_end(old: Path) -> None:
    """By the program, in a pipe: a line each, the reasons, the summary; and no byte of it is changed."""
    before = state_of(old.parent)
    ran = in_child("rehearse", folder=old.parent)
    rows = [line.split("\t") for line in ran.lines[: len(IDS)]]

    assert (ran.code, ran.error) == (0, "")
    assert state_of(old.parent) == before
    assert [row[:2] for row in rows][:4] == [
        [IDS[0], "adopted"],
        [IDS[1], "schema-exact"],
        [IDS[2], "schema-exact"],
        [IDS[3], "exact"],
    ]
    assert all(re.fullmatch(r"\d+\.\d\d", row[2]) for row in rows)
    assert [row[3] for row in rows][:4] == [
        "none",
        "conversation_context 65, legacy_rows 50, user_insights 62, user_patterns 63",
        "conversation_context 95, legacy_rows 20, user_insights 94, user_patterns 121",
        "none",
    ]
    assert (
        f"{IDS[0]}: adopted conversation_context, user_insights, user_patterns: to undo it, restore the "
        "backup made before it" in ran.lines
    )
    assert (
        f"{IDS[1]}: user_patterns.pattern_value: 45 values differ, "
        "for example 1: 'plays tight' became '\"plays tight\"'" in ran.lines
    )
    assert re.fullmatch(r"The real run needs up to [\d,]+ bytes of disk space\.", ran.lines[-2])


def test_json_says_the_same_as_the_text(old: Path) -> None:
    text = command("rehearse", folder=old.parent)
    machine = command("rehearse", "--json", folder=old.parent)
    found = machine.json

    assert (text.code, machine.code) == (0, 0)
    assert found.keys() == {"database", "safe", "room_in_bytes", "reason", "not_tried", "migrations"}
    assert (found["database"], found["safe"]) == (str(old), True)
    assert f"{found['room_in_bytes']:,} bytes" in text.lines[-2]
    assert [one["id"] for one in found["migrations"]] == IDS
    for one, line in zip(found["migrations"], text.lines, strict=False):
        assert one.keys() == {
            "id",
            "seconds",
            "rows_changed",
            "verdict",
            "reasons",
            "broken_promises",
            "locks",
        }
        assert line.startswith(f"{one['id']}\t{one['verdict']}\t")
        assert all(f"{one['id']}: {reason}" in text.lines for reason in one["reasons"])
        assert one["seconds"] > 0


def test_what_001_has_adopted_can_be_taken_back(old: Path) -> None:
    """So that an app's operator may go back as far as 001, in place."""
    up(old, IDS[0])
    ran = command("rehearse", folder=old.parent)

    assert ran.code == 0
    assert [line.split("\t")[1] for line in ran.lines[:3]] == ["schema-exact", "schema-exact", "exact"]
    assert ran.lines[-1] == "Every migration can be applied and rolled back."


@pytest.mark.parametrize("wanted", [IDS[1], IDS[1][:3]])
def test_a_rehearsal_ends_where_it_is_told(wanted: str, old: Path) -> None:
    """By an id, or by how it begins, as yoyo takes it."""
    ran = command("rehearse", "--to", wanted, "--json", folder=old.parent)

    assert [one["id"] for one in ran.json["migrations"]] == IDS[:2]


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ("005_add_session_mood", "005_add_session_mood is not pending"),
        ("", "'' matches more than one migration"),
        (IDS[0], f"{IDS[0]} is not pending"),
    ],
)
def test_an_end_that_is_not_pending_is_an_error(wanted: str, said: str, old: Path) -> None:
    up(old, IDS[0])
    message = refused("rehearse", "--to", wanted, folder=old.parent)

    assert message.startswith(f"{said}: the pending ones are ")
    assert IDS[1] in message


def test_nothing_pending_is_nothing_to_do(tmp_path: Path) -> None:
    get_pattern_storage(tmp_path / "RexVoice.db").close()
    ran, machine = (command("rehearse", *options, folder=tmp_path) for options in ((), ("--json",)))

    assert (ran.code, machine.code) == (0, 0)
    assert ran.lines == [f"{tmp_path}/RexVoice.db: nothing is pending, so there is nothing to rehearse."]
    assert machine.json == {
        "database": f"{tmp_path}/RexVoice.db", "safe": True, "room_in_bytes": 0, "reason": "",
        "not_tried": [], "migrations": [],
    }  # fmt: skip


def test_each_migration_builds_on_the_one_before(either: Project) -> None:
    either.run_sql("INSERT INTO hands VALUES (1, 'flop'), (2, 'turn')")
    found = rehearse(locate(either.database), sources=[str(either.sql)]).migrations

    assert [one.verdict for one in found] == [Verdict.EXACT] * 3
    assert [one.changed for one in found] == [{}, {"bets": 2}, {}]


def test_what_comes_after_a_failure_is_not_tried(either: Project) -> None:
    """What fails on these rows is seen before it fails on the real database."""
    either.run_sql("INSERT INTO hands VALUES (1, 'river')")
    found = rehearse(locate(either.database), sources=[str(either.sql)])

    assert not found.is_safe
    assert [(one.id, one.verdict) for one in found.migrations] == [
        ("001_add_bets", Verdict.EXACT),
        ("002_fill_bets", None),
    ]
    assert "002_fill_bets.sql:2: " in found.migrations[1].reasons[0]
    assert found.not_tried == ["003_add_pots"]


def test_what_is_being_done_is_told(either: Project) -> None:
    """Each step by name, and how many migrations are behind it."""
    told: list[tuple[str, int, int]] = []
    rehearse(locate(either.database), sources=[str(either.sql)], progress=lambda *step: told.append(step))
    steps = ("applying", "rolling back", "comparing", "applying again")

    assert told == [
        (f"{step} {name}", done, 3)
        for done, name in enumerate(("001_add_bets", "002_fill_bets", "003_add_pots"))
        for step in steps
    ]


def test_an_interrupted_rehearsal_leaves_nothing(three: Project) -> None:
    """Ctrl-C in the middle of it."""

    def interrupt(doing: str, done: int, total: int) -> None:
        if doing == "comparing 002_fill_bets":
            raise KeyboardInterrupt

    before = state_of(three.folder)
    with pytest.raises(KeyboardInterrupt):
        rehearse(SQLiteLocation(three.database), sources=[str(three.sql)], progress=interrupt)

    assert state_of(three.folder) == before
    assert sorted(path.name for path in three.folder.iterdir()) == ["game.db", "sql"]


def test_what_a_killed_rehearsal_left_goes_with_the_next(three: Project) -> None:
    """Its copies hold every player's data, and as much room as the database."""
    before = sorted(path.name for path in three.folder.iterdir())
    action = partial(rehearse, SQLiteLocation(three.database), sources=[str(three.sql)])

    assert run_killed_at(15, action) == -signal.SIGKILL
    assert sorted(path.name for path in three.folder.iterdir()) != before

    action()

    assert sorted(path.name for path in three.folder.iterdir()) == before


def test_a_database_in_use_is_rehearsed_as_it_stands(three: Project) -> None:
    """What has been committed counts, though it is still in the log; what has not does not."""
    with closing(sqlite3.connect(three.database, isolation_level=None)) as app:
        app.execute("PRAGMA journal_mode = WAL")
        app.execute("INSERT INTO hands VALUES (1, 'flop')")
        app.execute("BEGIN IMMEDIATE")
        app.execute("INSERT INTO hands VALUES (2, 'river')")
        found = rehearse(SQLiteLocation(three.database), sources=[str(three.sql)])
        app.execute("COMMIT")

        assert [one.changed for one in found.migrations] == [{}, {"bets": 1}, {}]
        assert app.execute("SELECT count(*) FROM hands").fetchone() == (2,)


def test_the_room_that_is_named_suffices(old: Path) -> None:
    """For the backup, the database as it then is, and a journal as large as either."""
    room = command("rehearse", "--json", folder=old.parent).json["room_in_bytes"]
    size = old.stat().st_size
    with get_pattern_storage(old):
        pass
    (backup,) = old.parent.glob("*.backup")

    assert backup.stat().st_size == size
    assert room >= backup.stat().st_size + old.stat().st_size


MEASURE = r"""
import os
import re
import sys
from pathlib import Path
from poker_therapist.location import SQLiteLocation
from poker_therapist.schema import rehearse

print(len(rehearse(SQLiteLocation(Path(sys.argv[1]))).migrations))
print(int(re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())[1]) // 1024)
"""
SAID = """
    WITH RECURSIVE number(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < {count})
    INSERT INTO conversation_context (user_id, context_key, context_value, created_at)
    SELECT n % 50, 'topic', 'said ' || hex(randomblob(500)), '2026-01-05 18:12:01' FROM number
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="this system does not tell the peak")
def test_memory_stays_flat(tmp_path: Path, report: Callable[[str], None]) -> None:
    """A database of 20 MB takes hardly more than one of 2 MB, of which every value is changed."""
    peaks = []
    for count in (2_000, 20_000):
        path = tmp_path / f"{count}.db"
        old_app.make(path, rows=0)
        run_sql(path, SAID.format(count=count))
        migrations, peak = map(int, run_script(MEASURE, path))
        peaks.append(peak)

        assert path.stat().st_size > 1_000 * count
        assert migrations == len(IDS)

    report(f"a rehearsal of 2 MB takes {peaks[0]} MB of memory, of 20 MB {peaks[1]} MB")
    assert peaks[1] - peaks[0] < 15


def test_an_edited_file_is_refused_as_the_real_run_would_refuse_it(either: Project) -> None:
    assert either.yoyo("apply", "-m", "001").returncode == 0
    either.write("001_add_bets", "CREATE TABLE bets (id TEXT);", "DROP TABLE bets;")
    with pytest.raises(MigrationEdited):
        rehearse(locate(either.database), sources=[str(either.sql)])


def test_what_only_looks_like_the_copies_of_a_rehearsal_stays(three: Project) -> None:
    """A file, a folder of notes, of another name or with other things in it, a link."""
    name = f"{three.database.name}.rehearsal-"
    notes = [three.folder / f"{name}{ending}" for ending in ("notes", "abcdefgh", "ijklmnop")]
    for path in notes[:2]:
        path.mkdir()
        (path / "notes.txt").write_text("mine")
        os.utime(path, (0, 0))
    notes[2].write_text("a file")
    (three.folder / f"{name}qrstuvwx").symlink_to(notes[0])
    folder = three.folder / f"{name}01234567"
    folder.mkdir()
    for path in (folder / "work.db", folder / "work.db-notes"):
        path.write_text("mine, and no database " * 50)
    before = sorted(three.folder.rglob("*"))
    rehearse(SQLiteLocation(three.database), sources=[str(three.sql)])

    assert sorted(three.folder.rglob("*")) == before
