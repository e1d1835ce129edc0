"""`poker-therapist status`: each state of a migration, drift of the schema, exit codes."""

import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from poker_therapist import get_pattern_storage, schema
from poker_therapist.engines import engine_for
from poker_therapist.location import SQLiteLocation, locate
from poker_therapist.migrations.atomic import AtomicBackend
from poker_therapist.migrations.files import read_migrations
from poker_therapist.migrations.status import State
from poker_therapist.schema import read_status
from poker_therapist.sqlite.backend import AtomicSQLiteBackend
from poker_therapist.testing import run_killed_at
from tests.helpers import old_app, snapshots
from tests.helpers.cli import Result, command, in_child, refused, state_of
from tests.helpers.engines import is_server, run_sql
from tests.helpers.migrating import IDS, up
from tests.helpers.project import Project

STOPPED = "it was interrupted; finish it with `poker-therapist apply"
STOPPED_BACK = "its rollback was interrupted; finish it with `poker-therapist rollback"
UNVERIFIED = "applied by plain yoyo: not verified"


@pytest.fixture
def game(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project with two migrations, which the command takes for those of this version."""
    return with_two_migrations(Project(tmp_path / "project"), monkeypatch)


@pytest.fixture
def either(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """The same, on each engine."""
    return with_two_migrations(project, monkeypatch)


def with_two_migrations(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    project.write("001_add_hands", "CREATE TABLE hands (id INTEGER PRIMARY KEY);", "DROP TABLE hands;")
    project.write(
        "002_add_bets",
        "-- transactional: false\n-- depends: 001_add_hands\n"
        "CREATE TABLE IF NOT EXISTS bets (id INTEGER);\nCREATE TABLE IF NOT EXISTS pots (id INTEGER);",
        "DROP TABLE pots;\nDROP TABLE bets;",
    )
    monkeypatch.setattr(schema, "folders_for", lambda _location, _applied: [project.sql])
    return project


def ask(project: Project, *options: str) -> Result:
    """Ask for the status of a project's database."""
    return command("status", "--database", project.database, *options, folder=project.folder)


def apply(project: Project) -> None:
    assert project.yoyo("apply").returncode == 0


def apply_by_plain_yoyo(project: Project) -> None:
    assert project.plain_yoyo("apply").returncode == 0


def nothing(project: Project) -> None:
    """There is no database."""


def only_the_first(project: Project) -> None:
    assert project.yoyo("apply", "-m", "001").returncode == 0


def edited(project: Project) -> None:
    apply(project)
    with (project.sql / "001_add_hands.rollback.sql").open("a") as file:
        file.write("\n-- seen by Ann")


def missing(project: Project) -> None:
    apply(project)
    for file in project.sql.glob("001*"):
        file.unlink()
    text = (project.sql / "002_add_bets.sql").read_text()
    (project.sql / "002_add_bets.sql").write_text(text.replace("-- depends: 001_add_hands\n", ""))


def unknown(project: Project) -> None:
    apply(project)
    for file in project.sql.glob("002*"):
        file.unlink()


def unknown_to_plain_yoyo(project: Project) -> None:
    apply_by_plain_yoyo(project)
    for file in project.sql.glob("002*"):
        file.unlink()


def stopped_in_the_middle(project: Project) -> None:
    project.write(
        "002_add_bets",
        "-- transactional: false\n-- depends: 001_add_hands\nCREATE TABLE bets (id INTEGER);\nNONSENSE;",
    )
    assert project.yoyo("apply").returncode == 1


def stopped_on_the_way_back(project: Project) -> None:
    project.write(
        "002_add_bets",
        "-- transactional: false\n-- depends: 001_add_hands\nCREATE TABLE bets (id INTEGER);",
        "DROP TABLE bets;\nNONSENSE;",
    )
    apply(project)
    assert project.yoyo("rollback").returncode == 1


def taken_over_from_plain_yoyo(project: Project) -> None:
    """Ours has looked at what plain yoyo applied, and applied one more."""
    assert project.plain_yoyo("apply", "-m", "001").returncode == 0
    apply(project)


def applied_again_by_plain_yoyo(project: Project) -> None:
    """From another text than ours had applied before."""
    apply(project)
    for word in ("rollback", "apply"):
        assert project.plain_yoyo(word, "-m", "002").returncode == 0
        project.write(
            "002_add_bets", "-- depends: 001_add_hands\nCREATE TABLE bets (id TEXT);", "DROP TABLE bets;"
        )


EDIT = """001_add_hands was applied, and its file has been edited since:
  sql/001_add_hands.rollback.sql
    @@ -1,0 +2 @@
    +-- seen by Ann
Restore the file"""
STATES: dict[str, tuple[Callable[[Project], None], int, list[tuple[State, str]]]] = {
    "no database": (nothing, 3, [(State.PENDING, ""), (State.PENDING, "")]),
    "one applied": (only_the_first, 3, [(State.APPLIED, ""), (State.PENDING, "")]),
    "all applied": (apply, 0, [(State.APPLIED, ""), (State.APPLIED, "")]),
    "edited": (edited, 4, [(State.EDITED, EDIT), (State.APPLIED, "")]),
    "unknown": (
        unknown,
        4,
        [(State.APPLIED, ""), (State.UNKNOWN, "its scripts are stored in the database: `poker-therapist r")],
    ),
    "another's, by plain yoyo": (
        unknown_to_plain_yoyo, 0, [(State.APPLIED, UNVERIFIED)],
    ),
    "interrupted": (stopped_in_the_middle, 4, [(State.APPLIED, ""), (State.INTERRUPTED, STOPPED)]),
    "interrupted rollback": (
        stopped_on_the_way_back,
        4,
        [(State.APPLIED, ""), (State.INTERRUPTED, STOPPED_BACK)],
    ),
    "plain yoyo": (
        apply_by_plain_yoyo, 0, [(State.APPLIED, UNVERIFIED), (State.APPLIED, UNVERIFIED)],
    ),
    "plain yoyo, then ours": (
        taken_over_from_plain_yoyo, 0, [(State.APPLIED, UNVERIFIED), (State.APPLIED, "")],
    ),
    "ours, then plain yoyo": (
        applied_again_by_plain_yoyo, 0, [(State.APPLIED, ""), (State.APPLIED, UNVERIFIED)],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", STATES)
def test_each_state_is_named_and_ends_in_its_exit_code(case: str, either: Project) -> None:
    """Text and JSON say the same; the JSON can be parsed whatever the state is."""
    make, code, states = STATES[case]
    make(either)
    text, machine = ask(either), ask(either, "--json")
    found = machine.json["migrations"]

    assert (text.code, machine.code) == (code, code)
    assert machine.json["state"] == {0: "up to date", 3: "pending", 4: "trouble"}[code]
    assert [one["state"] for one in found] == [state for state, _ in states]
    assert [line.split("\t")[:2] for line in text.lines[: len(found)]] == [
        [one["id"], one["state"]] for one in found
    ]
    for one, (state, note) in zip(found, states, strict=True):
        assert one["note"].startswith(note)
        assert bool(one["note"]) == bool(note)
        assert (one["applied_at"] is None) == (state in (State.PENDING, State.INTERRUPTED))


def test_a_migration_whose_file_is_gone_is_missing(either: Project) -> None:
    """Unlike an unknown one it is older than the newest file."""
    missing(either)
    ran = ask(either, "--json")
    first, second = ran.json["migrations"]

    assert (ran.code, first["id"], first["state"]) == (4, "001_add_hands", State.MISSING)
    assert first["note"].startswith(
        "its scripts are stored in the database: `poker-therapist rollback --to 001_add_hands --database "
    )
    assert second["state"] == State.EDITED  # it named the one that is gone


def test_json_says_all_that_there_is_to_say(game: Project) -> None:
    only_the_first(game)
    with snapshots.connect(game.database) as connection:
        connection.execute("ALTER TABLE hands ADD COLUMN mine TEXT")
        ((time,),) = connection.execute("SELECT applied_at_utc FROM _yoyo_migration").fetchall()

    assert ask(game, "--json").json == {
        "database": str(game.database),
        "exists": True,
        "state": "trouble",
        "migrations": [
            {"id": "001_add_hands", "state": "applied", "applied_at": time, "note": ""},
            {"id": "002_add_bets", "state": "pending", "applied_at": None, "note": ""},
        ],
        "unjudged": "",
        "mending": [],
        "drift": [{"about": "column hands.mine", "expected": None, "actual": "TEXT"}],
    }


@pytest.mark.slow
def test_a_migration_outside_a_transaction_that_was_killed_is_interrupted_until_it_is_applied(
    game: Project,
) -> None:
    """Killed at each of its statements: pending at first, then interrupted, at the end applied."""
    only_the_first(game)
    start = game.database.read_bytes()
    order = [State.PENDING, State.INTERRUPTED, State.APPLIED]
    seen: list[State] = []
    ended = -signal.SIGKILL
    while ended == -signal.SIGKILL:
        game.database.write_bytes(start)
        ended = run_killed_at(len(seen) + 1, partial(apply_here, game))
        seen.append(
            next(
                one.state
                for one in read_status(SQLiteLocation(game.database)).migrations
                if one.id == "002_add_bets"
            )
        )

        assert run_killed_at(0, partial(apply_here, game)) == 0
        assert ask(game).code == 0

    assert set(seen) == set(order)
    assert sorted(seen, key=order.index) == seen


def apply_here(project: Project) -> None:
    """Apply in this process, which may be killed."""
    with AtomicSQLiteBackend(SQLiteLocation(project.database)) as backend:
        backend.apply_migrations(backend.to_apply(read_migrations([str(project.sql)])))


def old(path: Path) -> None:
    old_app.make(path)


def half_way(path: Path) -> None:
    old_app.make(path)
    up(path, IDS[1])


def in_use(path: Path) -> None:
    with get_pattern_storage(path) as storage:
        storage.save_pattern(7, "tilt", "after_bad_beat", 1)


def drifted(path: Path) -> None:
    in_use(path)
    with snapshots.connect(path) as connection:
        connection.execute("CREATE INDEX mine ON user_patterns (confidence)")


@pytest.mark.parametrize("make", [old, half_way, in_use, drifted])
def test_looking_changes_no_byte(make: Callable[[Path], None], tmp_path: Path) -> None:
    """Nor the time of change, and no file is made."""
    make(tmp_path / "RexVoice.db")
    before = state_of(tmp_path)
    command("status", folder=tmp_path)
    command("status", "--json", folder=tmp_path)

    assert state_of(tmp_path) == before
    assert list(before) == ["RexVoice.db"]


def test_looking_at_a_database_that_is_not_there_makes_none(tmp_path: Path) -> None:
    """It is not an error: everything is pending, and the command that makes it is named."""
    ran = in_child("status", folder=tmp_path)

    assert (ran.code, ran.error) == (3, "")
    assert ran.lines[:-1] == [f"{name}\tpending" for name in IDS]
    assert ran.lines[-1] == (
        f"There is no database {tmp_path}/RexVoice.db yet; "
        f"`poker-therapist apply --database {tmp_path}/RexVoice.db` creates it."
    )
    assert command("status", "--json", folder=tmp_path).json["exists"] is False
    assert list(tmp_path.iterdir()) == []


def test_a_script_reads_one_line_a_migration_with_tabs_between(tmp_path: Path) -> None:
    """Of an up-to-date database, through the program itself."""
    get_pattern_storage(tmp_path / "RexVoice.db").close()
    ran = in_child("status", folder=tmp_path)
    rows = [line.split("\t") for line in ran.lines[:-1]]

    assert (ran.code, ran.error) == (0, "")
    assert [row[:2] for row in rows] == [[name, "applied"] for name in IDS]
    assert all(len(row) == 3 and len(row[2]) == len("2026-01-05 18:12:01") for row in rows)
    assert ran.lines[-1] == f"{tmp_path}/RexVoice.db: up to date."


def test_the_files_count_and_not_what_is_recorded(either: Project) -> None:
    """A database that comes from elsewhere may keep any text under the id of a file."""
    apply(either)
    either.write("001_add_hands", "CREATE TABLE hands (id INTEGER PRIMARY KEY, note TEXT);")

    found = ask(either, "--json").json["drift"]
    assert [one["about"] for one in found] == ["column hands.note"]


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    assert "there is no folder" in refused("status", "-d", "nowhere/x.db", folder=tmp_path)


def test_a_migration_that_needs_a_table_of_the_app_can_be_looked_at(either: Project) -> None:
    """Where migrations are built again there is no such table, so it must be found in another way."""
    run_sql(either.database, "CREATE TABLE users (id INTEGER PRIMARY KEY)")
    either.write("003_fill_hands", "-- depends: 002_add_bets\nINSERT INTO hands SELECT id FROM users;")
    apply(either)

    assert ask(either).code == 0


def test_a_table_of_the_app_that_is_gone_is_named(either: Project) -> None:
    """A migration has made an index of it: that is drift, and no advice to apply anything."""
    run_sql(either.database, "CREATE TABLE messages (id INTEGER PRIMARY KEY, body TEXT)")
    either.write("003_index_messages", "-- depends: 002_add_bets\nCREATE INDEX by_body ON Messages (body);")
    apply(either)
    assert ask(either).code == 0
    run_sql(either.database, "DROP TABLE messages")
    ran = ask(either)

    assert ran.code == 4
    assert "drift: table messages is missing (003_index_messages needs it)" in ran.out.lower()
    assert "apply" not in ran.lines[-1]


def test_a_table_of_the_app_that_a_view_reads_is_found_and_missed(game: Project) -> None:
    game.run_sql("CREATE TABLE messages (id INTEGER PRIMARY KEY)")
    game.write(
        "003_rename",
        "-- depends: 002_add_bets\n"
        "CREATE VIEW sent AS SELECT id FROM messages; ALTER TABLE pots RENAME TO pools;",
    )
    apply(game)
    assert ask(game).code == 0
    game.run_sql("DROP TABLE messages")

    assert "drift: table messages is missing (003_rename needs it)" in ask(game).out


def test_a_migration_that_is_under_way_is_no_trouble(either: Project) -> None:
    """It is not waited for: what can be judged is said, and that somebody has to ask again."""
    only_the_first(either)
    with engine_for(locate(str(either.database))).backend() as migrating:
        assert isinstance(migrating, AtomicBackend)
        with migrating.migration_lock(), migrating.one_transaction():
            with migrating.migration_names():
                migrating.execute("ALTER TABLE hands ADD COLUMN note TEXT")
            ran = ask(either, "--json")

    assert (ran.code, ran.json["unjudged"], ran.json["drift"]) == (3, "", [])
    assert [one["state"] for one in ran.json["migrations"]] == ["applied", "pending"]
    assert ran.json["state"] == ("migrating" if is_server(either.database) else "pending")


def test_a_migration_that_no_transaction_holds_is_interrupted_only_when_nobody_is_at_work(
    game: Project,
) -> None:
    game.write("003_halt", "-- transactional: false\n-- depends: 002_add_bets\nSELECT 1; SELECT none;")
    assert "no such column" in game.refuses("apply")
    with snapshots.connect(game.database) as working:
        working.execute("BEGIN IMMEDIATE")  # as VACUUM does
        running = ask(game)
    stopped = ask(game)

    assert (running.code, running.lines[-1]) == (
        3, f"{game.database}: a migration is running; check again when it has finished."
    )  # fmt: skip
    assert (stopped.code, stopped.lines[2].split()[1]) == (4, "interrupted")


def test_what_the_app_adds_to_its_own_table_is_no_drift(game: Project) -> None:
    """The index that a migration made of that table is judged."""
    game.run_sql("CREATE TABLE messages (id INTEGER PRIMARY KEY, body TEXT)")
    game.write("003_index_messages", "-- depends: 002_add_bets\nCREATE INDEX by_body ON messages (body);")
    game.write("004_view", "-- depends: 003_index_messages\nCREATE VIEW one AS SELECT 1 AS one;")
    assert game.yoyo("apply").returncode == 0
    game.run_sql(
        "ALTER TABLE messages ADD COLUMN sent TEXT; CREATE INDEX by_sent ON messages (sent);"
        "CREATE TRIGGER sent AFTER INSERT ON messages BEGIN SELECT 1; END;"
    )
    assert ask(game).code == 0

    game.run_sql("DROP INDEX by_body")
    assert "drift: index by_body is missing (on messages (body))" in ask(game).out


def test_what_cannot_be_built_again_is_not_judged_and_that_is_said(game: Project) -> None:
    game.run_sql("CREATE TABLE messages (id INTEGER PRIMARY KEY, body TEXT)")
    game.write("003_add_mood", "-- depends: 002_add_bets\nALTER TABLE messages ADD COLUMN mood TEXT;")
    assert game.yoyo("apply").returncode == 0
    ran = ask(game)

    assert ran.code == 4
    assert (
        "drift cannot be checked, because the applied migrations cannot be run again: duplicate column"
        in ran.out
    )
    assert "apply" not in ran.lines[-1]
