"""`poker-therapist apply`, `rollback` and `list`: what yoyo does, for a database given as path or URL."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from poker_therapist import get_pattern_storage, schema
from poker_therapist.migrations import run
from tests.helpers import old_app
from tests.helpers.cli import Result, command, in_child, on_terminal, program, refused, visible_lines
from tests.helpers.engines import is_server, query
from tests.helpers.project import Project


def shipped(database: str) -> list[str]:
    return sorted(schema.shipped_ids("postgresql" if is_server(database) else "sqlite"))


def about(project: Project, *arguments: str) -> Result:
    """Run a command with the project's migrations and database."""
    call = (*arguments, "--database", str(project.database), "--sources", "sql")
    return command(*call, folder=project.folder)


def test_the_shipped_migrations_are_applied_listed_and_rolled_back(database: str, tmp_path: Path) -> None:
    """In a folder where nothing is; each is told with its time."""
    ids = shipped(database)

    applied = command("apply", "--database", database, folder=tmp_path)
    assert (applied.code, applied.error) == (0, "")
    told = [line for line in applied.lines if line.startswith("applied ")]
    assert [line.split(" in ")[0] for line in told] == [f"applied {name}" for name in ids]
    assert all(line.endswith(" s") and float(line.split()[-2]) >= 0 for line in told)
    assert "as given" in applied.database
    listed = command("list", "--database", database, folder=tmp_path)
    assert [line.split("\t")[:2] for line in listed.lines] == [[name, "A"] for name in ids]
    assert command("apply", "--database", database, folder=tmp_path).lines == [
        "nothing to apply: the database is up to date"
    ]

    assert command("rollback", "--database", database, folder=tmp_path).out.startswith(
        f"rolled back {ids[-1]} in "
    )
    assert command("status", "--database", database, folder=tmp_path).code == 3
    command("rollback", "--to", ids[0], "--database", database, folder=tmp_path)
    listed = command("list", "--database", database, folder=tmp_path)
    assert [line.split("\t")[:2] for line in listed.lines] == [[name, "U"] for name in ids]


def test_what_was_done_is_told_to_a_program(two_migrations: Project) -> None:
    ran = about(two_migrations, "apply", "--json")
    assert [one["id"] for one in ran.json["applied"]] == ["001_add_hands", "002_add_bets"]
    assert all(one["seconds"] >= 0 for one in ran.json["applied"])
    assert about(two_migrations, "apply", "--json").json["applied"] == []
    listed = about(two_migrations, "list", "--json").json["migrations"]
    assert [one["status"] for one in listed] == ["A", "A"]
    ran = about(two_migrations, "rollback", "--json")
    assert [one["id"] for one in ran.json["rolled_back"]] == ["002_add_bets"]


def test_to_means_what_yoyos_revision_means(project: Project) -> None:
    """Applied are the one and what it depends on; rolled back are the one and what was applied after it."""
    project.write_two()
    header = "-- depends: 001_add_hands\n-- out-of-order: true\n"
    project.write("003_add_chips", f"{header}CREATE TABLE chips (id INTEGER);")

    assert about(project, "apply", "--to", "003").code == 0
    assert project.applied() == ["001_add_hands", "003_add_chips"]
    about(project, "apply")
    assert about(project, "rollback", "--to", "002").code == 0
    assert project.applied() == ["001_add_hands", "003_add_chips"]
    ran = about(project, "rollback", "--to", "00")
    assert (ran.code, project.applied()) == (1, ["001_add_hands", "003_add_chips"])
    assert "00 matches more than one migration: the migrations are 001_add_hands" in ran.error


def test_an_id_that_another_begins_with_can_be_named(project: Project) -> None:
    project.write("1_add", "CREATE TABLE hands (id INTEGER);")
    project.write("1_add_more", "-- depends: 1_add\nCREATE TABLE bets (id INTEGER);")

    assert about(project, "apply", "--to", "1_add").code == 0
    assert project.applied() == ["1_add"]


def test_a_failure_is_one_message_and_what_was_applied_before_stays(project: Project) -> None:
    project.write_two()
    project.write("003_fail", "-- depends: 002_add_bets\nSELECT * FROM nowhere;")

    ran = about(project, "apply", "--json")
    assert (ran.code, list(ran.json)) == (1, ["database", "applied", "backup", "error"])
    assert [one["id"] for one in ran.json["applied"]] == ["001_add_hands", "002_add_bets"]
    assert ran.error == f"poker-therapist: {ran.json['error']}\n"
    assert ran.error.startswith("poker-therapist: sql/003_fail.sql:2: ")
    assert project.applied() == ["001_add_hands", "002_add_bets"]


def test_a_rollback_without_a_database_makes_none(tmp_path: Path) -> None:
    assert "there is no database" in refused("rollback", "-d", "x.db", folder=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_migration_without_a_file_is_rolled_back_by_its_kept_text(two_migrations: Project) -> None:
    about(two_migrations, "apply")
    for file in two_migrations.sql.glob("002*"):
        file.unlink()

    assert "002_add_bets is applied, but has no file here" in about(two_migrations, "apply").out
    assert about(two_migrations, "rollback").code == 0
    assert two_migrations.tables() == ["hands"]


# Rows


@pytest.fixture
def played(two_migrations: Project) -> Project:
    """The project, applied, with rows in its tables."""
    about(two_migrations, "apply")
    two_migrations.run_sql("INSERT INTO hands VALUES (1), (2); INSERT INTO bets VALUES (1);")
    return two_migrations


def test_a_rollback_that_deletes_rows_needs_a_yes(played: Project) -> None:
    """The message says how many, and a call that works."""
    ran = about(played, "rollback", "--to", "001")
    assert (ran.code, ran.out, len(played.applied())) == (1, "", 2)
    assert "this rollback would delete 1 row of bets, 2 rows of hands, so nothing was changed" in ran.error
    assert "poker-therapist rollback --to 001_add_hands --yes --database" in ran.error

    assert about(played, "rollback", "--to", "001", "--yes").code == 0
    assert played.applied() == []


def test_yoyo_wants_its_ini_to_allow_it(played: Project) -> None:
    """`rollback`, `reapply` and `develop`; what holds no rows goes without it."""
    played.loses_rows = False
    for call in (("rollback",), ("rollback", "--all"), ("reapply",), ("develop",)):
        message = played.refuses(*call)
        assert "this rollback would delete 1 row of bets" in message
        assert "`poker-therapist rollback --to 00" in message
        assert ".ini" not in message
    assert len(played.applied()) == 2

    played.loses_rows = True
    assert played.yoyo("rollback").returncode == 0
    assert played.yoyo("reapply").returncode == 0
    assert played.query("SELECT count(*) FROM hands") == [(0,)]
    played.loses_rows = False
    assert played.yoyo("rollback", "--all").returncode == 0


@pytest.mark.parametrize("said", ["", "allow_data_loss = off\n"])
def test_the_line_of_the_ini_that_allows_it_is_named(said: str, played: Project) -> None:
    """As it is to be written; where yoyo has a table of its own, that is the only way."""
    ini = played.folder / "yoyo.ini"
    url = played.url_for(played.atomic, "").replace("%", "%%")
    head = ["# ours", "[DEFAULT]", "batch_mode = on", "sources = sql", f"database = {url}"]
    ini.write_text("\n".join([*head, said]))
    message = played.bare_yoyo("rollback").stderr

    how, line = ("change line 6", 6) if said else ("add a line below line 2", 3)
    assert f"{how} of {ini} for this run: `allow_data_loss = on`" in message
    lines = ini.read_text().splitlines()
    lines[line - 1 : line - 1 + bool(said)] = ["allow_data_loss = on"]
    ini.write_text("\n".join(lines))
    assert played.bare_yoyo("rollback").returncode == 0
    assert len(played.applied()) == 1


def test_with_a_table_of_its_own_only_an_ini_allows_it(two_migrations: Project) -> None:
    """For `poker-therapist` has none."""
    url = two_migrations.url_for(two_migrations.atomic, "")
    own = ("--no-config-file", "-b", "-d", url, "--migration-table", "_mine", "sql")
    two_migrations.bare_yoyo("apply", *own)
    two_migrations.run_sql("INSERT INTO bets VALUES (1)")

    message = two_migrations.bare_yoyo("rollback", *own).stderr
    assert "to allow it, write [DEFAULT] and `allow_data_loss = on` to a file, and pass it with" in message


def test_what_the_ini_says_must_be_on_or_off(two_migrations: Project) -> None:
    url = two_migrations.url_for(two_migrations.atomic, "").replace("%", "%%")
    (two_migrations.folder / "yoyo.ini").write_text(
        f"[DEFAULT]\nsources = sql\ndatabase = {url}\nallow_data_loss = perhaps\n"
    )
    ran = two_migrations.bare_yoyo("list")
    assert (ran.returncode, "must be on or off" in ran.stderr) == (1, True)
    assert "Traceback" not in ran.stderr


def test_reapply_with_the_shipped_ini_deletes_no_player(tmp_path: Path) -> None:
    ini = Path(__file__).parents[2] / "yoyo.ini"
    folder = schema.migrations_folder("sqlite")
    (tmp_path / "yoyo.ini").write_text(
        ini.read_text().replace("%(here)s/sql_migrations/sqlite", str(folder)), encoding="utf-8"
    )
    with get_pattern_storage(tmp_path / "RexVoice.db") as storage:
        storage.save_pattern(7, "tilt", "after_bad_beat", 1)
    project = Project(tmp_path / "project")
    ran = project.bare_yoyo("reapply", folder=tmp_path)

    assert ran.returncode == 1
    assert "yoyo: this rollback would delete 1 row of user_patterns, so nothing was changed" in ran.stderr
    with get_pattern_storage(tmp_path / "RexVoice.db") as storage:
        assert storage.get_pattern(7, "tilt", "after_bad_beat") == 1


@pytest.mark.parametrize(("answer", "left"), [("n", 2), ("y", 1)])
def test_on_a_terminal_it_asks(played: Project, answer: str, left: int) -> None:
    call = ("rollback", "--database", str(played.database), "--sources", "sql")
    code, drawn = on_terminal(*call, folder=played.folder, columns=200, answer=f"{answer}\n")

    assert "This deletes 1 row of bets. Continue? [y/N]" in " ".join(visible_lines(drawn))
    assert (code, len(played.applied())) == (int(left == 2), left)


def test_a_backup_is_made_before_rows_go(tmp_path: Path) -> None:
    path = tmp_path / "RexVoice.db"
    with get_pattern_storage(path) as storage:
        storage.save_pattern(7, "tilt", "after_bad_beat", 1)

    ran = command("rollback", "--to", "001", "--yes", "--json", "-d", path, folder=tmp_path)
    assert Path(ran.json["backup"]).is_file()
    assert query(path, "SELECT count(*) FROM sqlite_schema WHERE name = 'user_patterns'") == [(0,)]


def test_what_a_migration_found_there_is_not_rolled_back(tmp_path: Path) -> None:
    """Also with --yes: its rows are older than the migrations."""
    old_app.make(tmp_path / "RexVoice.db")
    command("apply", folder=tmp_path)

    assert "restore the backup" in refused("rollback", "--to", "001", "--yes", folder=tmp_path)


@pytest.mark.slow
def test_the_program_applies_in_an_empty_folder(tmp_path: Path) -> None:
    """RexVoice.db, unless something else is said; the environment may name another."""
    assert program("apply", folder=tmp_path).code == 0
    assert (tmp_path / "RexVoice.db").is_file()

    environment = {"POKER_THERAPIST_DATABASE": "other.db"}
    ran = in_child("apply", folder=tmp_path, environment=environment)
    assert ran.database == f"database: {tmp_path}/other.db (named by POKER_THERAPIST_DATABASE)\n"
    assert (
        in_child("status", folder=tmp_path, environment=environment)
        .lines[-1]
        .startswith(f"{tmp_path}/other.db")
    )
    (tmp_path / "yoyo.ini").write_text("[DEFAULT]\ndatabase = third.db\n")
    ran = in_child("apply", folder=tmp_path, environment=environment)
    assert ran.database == f"database: {tmp_path}/third.db (named by {tmp_path}/yoyo.ini)\n"
    assert (
        "given.db (as given)"
        in in_child("apply", "-d", "given.db", folder=tmp_path, environment=environment).database
    )


def test_a_password_in_the_environment_is_not_shown(tmp_path: Path) -> None:
    url = "postgresql://rex:hunter2@127.0.0.1:9/memory"
    ran = in_child("status", folder=tmp_path, environment={"POKER_THERAPIST_DATABASE": url})

    assert (ran.code, "hunter2" in ran.error + ran.out + ran.database) == (1, False)
    assert ran.database.endswith("(named by POKER_THERAPIST_DATABASE)\n")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_can_complete_commands(shell: str, tmp_path: Path) -> None:
    environment = {"_POKER_THERAPIST_COMPLETE": f"{shell}_source"}
    ran = in_child("x", folder=tmp_path, environment=environment)

    assert (ran.code, ran.error) == (0, "")
    assert "_POKER_THERAPIST_COMPLETE" in ran.out


def test_what_a_migration_prints_does_not_start_its_time_again(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter((0.0, 4.0, 5.0))
    monkeypatch.setattr(run, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    backend, said = SimpleNamespace(run=None), list[str]()
    done = run._telling(backend, "applied", said.append)  # type: ignore[arg-type]  # only its report is asked
    for line in ("backup: x", "1 | a row of a SELECT", "applied 002_i", "applied 003_k"):
        backend.report(line)

    assert done == run.Run({"002_i": 4.0, "003_k": 1.0}, "x")
    assert said[-2:] == ["applied 002_i in 4.00 s", "applied 003_k in 1.00 s"]
