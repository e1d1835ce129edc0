"""What no transaction holds is stopped in the middle: it is finished or rolled back before anything else."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yoyo.scripts.init
import yoyo.scripts.migrate
import yoyo.scripts.newmigration  # noqa: F401  # all that the command imports: its child need not

from poker_therapist import MigrationInterrupted, get_pattern_storage, schema
from poker_therapist.engines import engine_for
from poker_therapist.location import locate
from poker_therapist.migrations.status import MigrationStatus, read_status
from poker_therapist.new_files import Claim
from poker_therapist.testing import run_killed_at
from tests.helpers.cli import command, refused
from tests.helpers.crashing import run_yoyo
from tests.helpers.engines import is_server, run_sql, sqlite_only
from tests.helpers.pairs import Pairs
from tests.helpers.postgresql import IN_PARTS, LOSES_ROWS, MIGRATIONS, ROWS, migrate, yoyo_in_child
from tests.helpers.project import Project
from tests.helpers.snapshots import everything, interrupted

UNPROTECTED = "-- transactional: false\n"
SEATS = [
    "CREATE TABLE IF NOT EXISTS seats (id INTEGER);",
    "INSERT INTO hands SELECT 2 WHERE NOT EXISTS (SELECT 1 FROM hands WHERE id = 2);",
    "CREATE TABLE IF NOT EXISTS pots (id INTEGER);",
]
BACK = [
    "DROP TABLE IF EXISTS pots;",
    "DELETE FROM hands WHERE id = 2;",
    "DROP TABLE IF EXISTS seats;",
]


@pytest.fixture
def three(project: Project) -> Project:
    """A project with three migrations, of which no transaction holds the second."""
    project.write(
        "001_add_hands",
        "CREATE TABLE hands (id INTEGER);\nINSERT INTO hands VALUES (1);",
        "DROP TABLE hands;",
    )
    project.write(
        "002_add_seats", f"{UNPROTECTED}-- depends: 001_add_hands\n" + "\n".join(SEATS), "\n".join(BACK)
    )
    project.write(
        "003_add_tables", "-- depends: 002_add_seats\nCREATE TABLE tables (id INTEGER);", "DROP TABLE tables;"
    )
    return project


def killed(project: Project, step: int | str, *command: str) -> bool:
    """Run yoyo in a child that is killed before a statement, its number or text; return if it was."""
    arguments = [*command, "--config", str(LOSES_ROWS), "--batch", "--database"]
    if is_server(project.database):
        url = project.url_for(project.atomic, "")
        return yoyo_in_child(*arguments, url, "sql", folder=project.folder, step=step).code < 0
    assert isinstance(step, int)
    url = project.url_for(project.atomic, "?backups=0")
    return run_killed_at(step, lambda: run_yoyo([*arguments, url, str(project.sql)])) < 0


def stops(project: Project, *command: str) -> Iterator[int]:
    """Give the number of each statement of a command at which a kill leaves 002 interrupted."""
    step = 1
    while killed(project, step, *command):
        if interrupted(project.database):
            yield step
        step += 1


def stop(project: Project, *command: str) -> None:
    """Kill a command where it leaves 002 interrupted, after some of its statements."""
    if is_server(project.database):  # where each kill takes long
        assert killed(project, "id = 2", *command)
        assert interrupted(project.database) == ["002_add_seats"]
        return
    if command[0] == "apply":  # what is done before would not be done again after the next kill
        assert project.yoyo("apply", "--revision", "001").returncode == 0
    for number, _ in enumerate(stops(project, *command)):
        if number == 1:
            return
    pytest.fail("it was never interrupted")


@pytest.mark.slow
def test_rollback_takes_back_first_what_was_interrupted_at_any_statement(three: Project) -> None:
    """And nothing else; so it does where the rollback was interrupted itself."""
    assert three.yoyo("apply", "--revision", "001").returncode == 0
    before = everything(three.database)
    kills = 0
    for _ in stops(three, "apply", "--revision", "002"):
        kills += 1
        assert three.yoyo("rollback").stdout.splitlines()[-1] == "rolled back 002_add_seats"
        assert everything(three.database) == before
        assert interrupted(three.database) == []
    assert kills >= len(SEATS)

    kills = 0
    for _ in stops(three, "rollback", "--revision", "002"):
        kills += 1
        assert three.yoyo("rollback").stdout.splitlines()[-1] == "rolled back 002_add_seats"
        assert everything(three.database) == before
        assert three.yoyo("apply", "--revision", "002").returncode == 0
    assert kills >= len(BACK)


@pytest.mark.slow
def test_our_own_go_back_from_any_statement(postgresql_url: str) -> None:
    """003 stopped in the middle: `yoyo rollback` used to roll back 002, and dropped `legacy_rows`."""
    assert migrate(["apply", "-m", "001"], postgresql_url).code == 0
    run_sql(postgresql_url, ROWS)
    for migration in IN_PARTS:
        place = MIGRATIONS.index(migration)
        assert migrate(["apply", "--revision", MIGRATIONS[place - 1].id], postgresql_url).code == 0
        before = everything(postgresql_url)
        step, kills = 1, 0
        while migrate(["apply", "--revision", migration.id], postgresql_url, step).code < 0:
            if interrupted(postgresql_url):
                kills += 1
                ran = migrate(["rollback"], postgresql_url)
                assert ran.out == f"rolled back {migration.id}\n"
                assert everything(postgresql_url) == before
            step += 1
        assert kills >= len(migration.statements("apply"))


def test_apply_finishes_it_first_and_goes_no_further_without_that(three: Project) -> None:
    stop(three, "apply")

    message = three.refuses("apply", "-m", "003")
    assert message.startswith(
        "003_add_tables cannot run before 002_add_seats: it was interrupted; finish it with "
        "`yoyo apply --revision 002_add_seats --no-config-file --database "
    )
    assert ", or roll it back with `yoyo rollback --revision 002_add_seats --no-config-file" in message
    # One that accepts any order waits as well; by its name it would be the first.
    three.write("000_add_more", "-- out-of-order: true\nCREATE TABLE more (id INTEGER);", "DROP TABLE more;")
    assert "cannot run before 002_add_seats" in three.refuses("apply", "-m", "000")
    assert [line for line in three.yoyo("apply").stdout.splitlines() if line.startswith("applied")] == [
        "applied 002_add_seats",
        "applied 000_add_more",
        "applied 003_add_tables",
    ]
    assert three.query("SELECT id FROM hands ORDER BY id") == [(1,), (2,)]


def test_nothing_else_is_rolled_back_before_it(three: Project) -> None:
    """Nor what was applied before, nor, where nobody says what it needs, what was applied after."""
    stop(three, "apply")

    assert "001_add_hands cannot run before 002_add_seats" in three.refuses("rollback", "-m", "001")
    assert three.yoyo("rollback", "--revision", "001").stdout.splitlines()[-2:] == [
        "rolled back 002_add_seats",
        "rolled back 001_add_hands",
    ]
    assert three.tables() == []


def test_a_rollback_that_was_interrupted_is_finished_before_anything_is_applied(
    three: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By opening, too."""
    assert three.yoyo("apply", "--revision", "002").returncode == 0
    stop(three, "rollback", "--revision", "002")
    monkeypatch.setattr(schema, "folders_for", lambda _location, _applied: [three.sql])
    monkeypatch.setattr(schema, "migrations_folder", lambda _name: three.sql)

    assert "002_add_seats: its rollback was interrupted" in three.refuses("apply", "-m", "002")
    message = three.refuses("apply")
    planned = refused("plan", "-d", str(three.database), "--sources", str(three.sql), folder=three.folder)
    assert "003_add_tables cannot run before 002_add_seats" in planned
    with pytest.raises(MigrationInterrupted) as refusal:
        get_pattern_storage(str(three.database))

    assert refusal.value.migration_id == "002_add_seats"
    for text in (message, str(refusal.value)):
        assert "003_add_tables cannot run before 002_add_seats: its rollback was interrupted" in text
    assert "finish it with `yoyo rollback --revision 002_add_seats --no-config-file" in message
    assert "finish it with `poker-therapist rollback --to 002_add_seats --database" in str(refusal.value)
    one = the_interrupted(three)
    assert one.note.startswith("its rollback was interrupted; finish it with `")
    assert three.yoyo("rollback").stdout.splitlines()[-1] == "rolled back 002_add_seats"
    assert three.yoyo("apply").returncode == 0


def test_the_list_marks_it(three: Project) -> None:
    """Beside its letter: it will be applied, or has been."""
    stop(three, "apply")
    assert [line.split() for line in three.yoyo("list").stdout.splitlines()[2:]] == [
        ["A", "001_add_hands", "sql"],
        ["U", "002_add_seats", "sql", "(interrupted)"],
        ["U", "003_add_tables", "sql"],
    ]
    assert three.yoyo("apply").returncode == 0
    assert three.yoyo("rollback").returncode == 0
    stop(three, "rollback", "--revision", "002")

    assert three.yoyo("list").stdout.splitlines()[3].split()[::3] == ["A", "(interrupted)"]


def test_one_whose_file_is_gone_is_rolled_back_by_its_kept_text(three: Project) -> None:
    stop(three, "apply")
    for file in (*three.sql.glob("002*"), *three.sql.glob("003*")):
        file.unlink()

    one = the_interrupted(three)
    assert "roll it back with `" in one.note
    assert "finish" not in one.note
    assert "002_add_seats: it was interrupted; roll it back with `" in three.refuses("apply")
    assert three.yoyo("rollback").stdout.splitlines()[-1] == "rolled back 002_add_seats"
    assert three.applied() == ["001_add_hands"]


def the_interrupted(project: Project) -> MigrationStatus:
    """Return what status says of the one that was interrupted."""
    with engine_for(locate(str(project.database))).backend() as backend:
        found = read_status(backend, [str(project.sql)]).migrations
    (one,) = (one for one in found if one.state == "interrupted")
    return one


def test_a_table_that_it_found_stays_though_no_transaction_held_it(project: Project) -> None:
    """The app's rows: neither the finished nor the interrupted one is rolled back over them."""
    project.run_sql("CREATE TABLE seats (id INTEGER);\nINSERT INTO seats VALUES (7);")
    project.write(
        "001_add_seats", f"{UNPROTECTED}CREATE TABLE IF NOT EXISTS seats (id INTEGER);", "DROP TABLE seats;"
    )
    assert next(stops(project, "apply"))
    assert "001_add_seats adopted seats" in project.refuses("rollback")

    assert project.yoyo("apply").returncode == 0
    assert "001_add_seats adopted seats" in project.refuses("rollback")
    assert project.query("SELECT id FROM seats") == [(7,)]


def test_a_table_that_it_made_before_it_was_stopped_is_not_taken_for_found(three: Project) -> None:
    stop(three, "apply")
    assert three.yoyo("apply").returncode == 0

    assert three.yoyo("rollback", "--revision", "002").returncode == 0
    assert three.tables() == ["hands"]


def test_a_hook_that_no_transaction_holds_leaves_nothing_to_wait_for(three: Project) -> None:
    """Nor does what an earlier version has recorded of it."""
    three.write("post-apply", f"{UNPROTECTED}SELECT 1;")
    assert three.yoyo("apply", "--revision", "002").returncode == 0
    assert interrupted(three.database) == []
    three.run_sql(
        "INSERT INTO _migration_text (migration_table, migration_id, apply_sql) "
        "VALUES ('_yoyo_migration', 'post-apply', 'SELECT 1;')"
    )

    said = [line for line in three.yoyo("apply").stdout.splitlines() if line.startswith("applied")]
    assert said == ["applied 003_add_tables", "applied post-apply"]
    assert three.yoyo("rollback").stdout.splitlines()[-1] == "rolled back 003_add_tables"


def test_a_late_comer_is_late_for_what_was_interrupted(project: Project) -> None:
    """It would be applied after it, and elsewhere before."""
    project.write(
        "2_b", f"{UNPROTECTED}CREATE TABLE IF NOT EXISTS b (id INTEGER);\nNONSENSE;", "DROP TABLE b;"
    )
    assert "NONSENSE" in project.refuses("apply")
    project.write("1_a", "CREATE TABLE a (id INTEGER);", "DROP TABLE a;")

    assert "sql/2_b.sql comes after sql/1_a.sql and is interrupted" in project.refuses("apply")


def test_reapply_takes_back_what_was_interrupted_and_applies_all(three: Project) -> None:
    stop(three, "apply")

    ran = three.yoyo("reapply", "--all").stdout.splitlines()
    assert [line for line in ran if "backup" not in line] == [
        "rolled back 002_add_seats",
        "rolled back 001_add_hands",
        "applied 001_add_hands",
        "applied 002_add_seats",
    ]


def test_a_rollback_out_of_the_middle_that_was_interrupted_comes_before_what_was_applied_later(
    three: Project,
) -> None:
    """Where nobody says what it needs, one may be rolled back alone."""
    text = (three.sql / "003_add_tables.sql").read_text().replace("-- depends: 002_add_seats\n", "")
    (three.sql / "003_add_tables.sql").write_text(text)
    assert three.yoyo("apply").returncode == 0
    stop(three, "rollback", "--match", "002")

    assert "003_add_tables cannot run before 002_add_seats: its rollback" in three.refuses(
        "rollback", "-m", "003"
    )
    assert three.yoyo("rollback").stdout.splitlines()[-1] == "rolled back 002_add_seats"
    assert three.applied() == ["001_add_hands", "003_add_tables"]


@pytest.mark.parametrize("direction", ["apply", "rollback"])
def test_what_is_still_under_way_is_waited_for_though_nothing_is_pending(
    direction: str, three: Project
) -> None:
    """It is neither taken for done nor for interrupted; afterwards it is as it is left."""
    if direction == "rollback":
        three.yoyo("apply", "--revision", "002")
    stop(three, direction, *(["--revision", "002"] if direction == "rollback" else []))
    for file in three.sql.glob("003*"):
        file.unlink()
    on_server = is_server(three.database)
    with ExitStack() as held:
        if on_server:
            other = held.enter_context(engine_for(locate(three.database)).backend())
            held.enter_context(other.migration_lock())
        else:
            claim = Claim(three.database)
            claim.take()
            held.callback(claim.release)
        message = three.refuses("apply", options=("&" if on_server else "?") + "timeout=0.1")
        assert "migrat" in message
        assert "0.1 seconds" in message
    if direction == "rollback":
        assert "its rollback was interrupted" in three.refuses("apply")
    else:
        assert three.yoyo("apply").returncode == 0


@sqlite_only
def test_what_says_that_it_is_under_way_goes_with_the_process(three: Project) -> None:
    """A killed one leaves a private folder; whoever comes next removes it."""
    stop(three, "apply")
    assert len(list(three.folder.glob("*.migrating-*"))) == 1
    assert three.yoyo("apply").returncode == 0
    assert list(three.folder.glob("*.migrating-*")) == []


def test_finishing_it_is_rehearsed(project: Project) -> None:
    """Its rollback is compared with what was there before it began; what is not known of that is said."""
    project.write("001_add_hands", "CREATE TABLE hands (id INTEGER);", "DROP TABLE hands;")
    call = ("rehearse", "--json", "-d", str(project.database), "--sources", "sql")
    failing = "SELECT * FROM nowhere;"

    def rehearsed(apply: str, rollback: str) -> tuple[str, list[str], int]:
        """Stop an apply before its end, then rehearse the rest."""
        header = "-- depends: 001_add_hands\n-- transactional: false\n"
        project.write("002_add_seats", f"{header}{apply}{failing}", rollback)
        project.yoyo("apply")
        assert interrupted(project.database) == ["002_add_seats"]
        project.write("002_add_seats", f"{header}{apply}", rollback)
        ran = command(*call, folder=project.folder)
        (found,) = ran.json["migrations"]
        assert project.yoyo("apply").returncode == 0
        assert project.yoyo("rollback").returncode == 0
        project.run_sql("DROP TABLE IF EXISTS seats; DELETE FROM hands;")
        return found["verdict"], found["reasons"], ran.code

    made = "CREATE TABLE IF NOT EXISTS seats (id INTEGER); CREATE INDEX IF NOT EXISTS by_id ON hands (id);"
    gone = "DROP INDEX IF EXISTS by_id;"
    assert rehearsed(made.partition(";")[2], gone) == ("exact", [], 0)
    assert rehearsed(made, f"{gone} DROP TABLE IF EXISTS seats;") == ("exact", [], 0)
    assert rehearsed(made, gone) == ("irreversible", ["table seats exists, but should not"], 4)
    verdict, (reason,), code = rehearsed(f"{made} DELETE FROM hands;", f"{gone} DROP TABLE IF EXISTS seats;")
    assert (verdict, code) == ("not judged", 4)
    assert "what its first run did to rows is unknown" in reason


def stopping(run: Callable[..., None], stop: type[BaseException]) -> Callable[..., None]:
    """Return what runs a statement, and raises then what a signal raises."""

    def stopped(*arguments: Any) -> None:
        run(*arguments)
        raise stop

    return stopped


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("transactional", [True, False])
def test_what_a_signal_leaves_is_said_truly(
    transactional: bool, stop: type[BaseException], database: str, tmp_path: Path
) -> None:
    """Nothing of what a transaction holds; of the rest, how it is finished, in both directions."""
    pairs = Pairs(tmp_path / "sql", database)
    header = "" if transactional else UNPROTECTED
    pairs.write(
        "001_seat",
        f"{header}CREATE TABLE IF NOT EXISTS seats (id INT);\nSELECT 1;",
        "SELECT 1;\nDROP TABLE IF EXISTS seats;",
    )
    for direction, doing in (("apply", "applying"), ("rollback", "rolling back")):
        told = list[str]()
        with pairs.backend() as backend:
            backend.create_database()
            backend.report_stopped = told.append
            # It comes when the first statement is done.
            backend.run = stopping(backend.run, stop)  # type: ignore[method-assign]
            found = backend.read([str(pairs.folder)])
            with pytest.raises(stop):
                (backend.apply_migrations if direction == "apply" else backend.rollback_migrations)(found)
        (said,) = told
        if transactional:
            assert said == f"stopped while {doing} 001_seat: all its changes were undone"
            assert interrupted(database) == []
        else:
            assert said.startswith("001_seat: it")
            assert f" with `poker-therapist {direction} --to 001_seat --database" in said
            assert interrupted(database) == ["001_seat"]
        if direction == "apply":
            pairs.apply()
