"""Where yoyo alone is silently wrong or stops in the middle: the fault on plain yoyo, then ours without."""

import getpass
import shutil

import pytest

from poker_therapist import SchemaTooNew, get_pattern_storage
from poker_therapist.schema import migrations_folder, shipped_ids
from tests.helpers.engines import is_server, per_engine
from tests.helpers.project import Project


def test_a_missing_rollback_file_is_refused(project: Project) -> None:
    """Plain yoyo says that it rolled back, and the table is still there."""
    path = project.write("001_add_hands", "CREATE TABLE hands (id INTEGER);", rollback=None)
    assert project.plain_yoyo("apply").returncode == 0
    assert project.plain_yoyo("rollback").returncode == 0
    assert (project.tables(), project.applied()) == (["hands"], [])

    project.run_sql("DROP TABLE hands")

    assert "sql/001_add_hands.rollback.sql is missing" in project.refuses("apply")

    project.write("001_add_hands", path.read_text(), "DROP TABLE hands;")
    assert project.yoyo("apply").returncode == 0
    (project.sql / "001_add_hands.rollback.sql").unlink()

    assert "sql/001_add_hands.rollback.sql is missing" in project.refuses("rollback")
    assert project.applied() == ["001_add_hands"]


@pytest.mark.parametrize("half", ["", ".rollback"])
def test_an_edited_file_is_refused_and_the_change_is_shown(half: str, two_migrations: Project) -> None:
    """Plain yoyo does not notice; ours says what changed, and how to accept it."""
    project = two_migrations
    assert project.yoyo("apply").returncode == 0
    edited = project.sql / f"001_add_hands{half}.sql"
    edited.write_text(edited.read_text() + "\n-- seen by Ann\n")

    assert project.plain_yoyo("apply").returncode == 0
    for command in ("apply", "rollback", "reapply"):
        message = project.refuses(command, "--all")

        assert f"sql/001_add_hands{half}.sql" in message
        assert "+-- seen by Ann" in message
        assert "Restore the file" in message

    assert project.yoyo("unmark", "-m", "^001_add_hands$").stdout == "unmarked 001_add_hands\n"
    assert project.yoyo("mark", "-m", "^001_add_hands$").stdout == "marked 001_add_hands as applied\n"
    assert project.yoyo("apply").returncode == 0
    assert project.tables() == ["bets", "hands"]


def test_a_checkout_of_another_system_is_the_same_migration(two_migrations: Project) -> None:
    """CRLF line ends and blanks at the end of lines are no edit."""
    assert two_migrations.yoyo("apply").returncode == 0
    for file in two_migrations.sql.iterdir():
        file.write_bytes(file.read_bytes().replace(b"\n", b"  \r\n"))

    assert two_migrations.yoyo("apply").returncode == 0


def test_a_migration_whose_file_is_gone_is_listed_and_rolled_back_from_its_text(
    two_migrations: Project,
) -> None:
    """Plain yoyo does not see it; ours names it, and undoes it from what the database has kept."""
    assert two_migrations.yoyo("apply").returncode == 0
    for file in two_migrations.sql.glob("002*"):
        file.unlink()

    assert "002_add_bets" not in two_migrations.plain_yoyo("list").stdout
    assert "002_add_bets   (kept in the database)" in two_migrations.yoyo("list").stdout
    assert two_migrations.yoyo("rollback").returncode == 0
    assert (two_migrations.tables(), two_migrations.applied()) == (["hands"], ["001_add_hands"])


def test_a_newer_database_is_refused_by_the_storage_and_brought_back_by_one_command(
    engine: str, project: Project
) -> None:
    """The ids that are too new are named; `yoyo rollback --revision` undoes them."""
    shipped, ids = migrations_folder(engine), sorted(shipped_ids(engine))
    shutil.copytree(shipped, project.sql, dirs_exist_ok=True)
    project.write(
        "901_add_mood", f"-- depends: {ids[-1]}\nCREATE TABLE mood (id INTEGER);", "DROP TABLE mood;"
    )
    project.write(
        "902_add_day", "-- depends: 901_add_mood\nCREATE TABLE day (id INTEGER);", "DROP TABLE day;"
    )
    assert project.yoyo("apply").returncode == 0

    with pytest.raises(SchemaTooNew, match="901_add_mood, 902_add_day"):
        get_pattern_storage(project.database)

    assert project.yoyo("rollback", "--revision", "901", sources=[str(shipped)]).returncode == 0
    assert project.applied() == ids
    get_pattern_storage(project.database).close()


@pytest.mark.parametrize("sources", [["sqll"], ["sql", "sqll"], ["README.md"], ["sql/empty"]])
def test_a_source_that_yields_no_migration_is_refused(sources: list[str], two_migrations: Project) -> None:
    """Plain yoyo applies nothing and says that all is well."""
    (two_migrations.sql / "empty").mkdir()

    assert f"there is no migration in {sources[-1]}" in two_migrations.refuses("apply", sources=sources)
    assert two_migrations.is_untouched()
    assert two_migrations.plain_yoyo("apply", sources=["sqll"]).returncode == 0


# A migration with an error, the line of it, and the message. SQLite does not say where in a statement it is.
WRONG = {
    "sqlite": (
        """-- What was bet.
-- depends: 001_add_hands
CREATE TABLE bets (id INTEGER);
INSERT INTO bets VALUES (1), (2, 'too many');""",
        [
            "sql/002_add_bets.sql:4: all VALUES must have the same number of terms",
            "    INSERT INTO bets VALUES (1), (2, 'too many');",
            "All changes of 002_add_bets were undone.",
        ],
    ),
    "postgresql": (
        """-- What was bet.
-- depends: 001_add_hands

CREATE TABLE bets (id INT);

INSERT INTO bets
SELECT
    hands.id
FROM hands
WHERE
    hands.number > 1;
""",
        [
            "sql/002_add_bets.sql:11: column hands.number does not exist",
            "    INSERT INTO bets SELECT hands.id FROM hands WHERE hands.number > 1;",
            "All changes of 002_add_bets were undone.",
        ],
    ),
}


def test_a_sql_error_is_one_message_with_its_place(engine: str, two_migrations: Project) -> None:
    """Plain yoyo prints a traceback without file or line; -vv of ours still shows it, too."""
    text, message = WRONG[engine]
    two_migrations.write("002_add_bets", text, "DROP TABLE bets;")
    plain = two_migrations.plain_yoyo("apply", "-m", "002")

    assert "Traceback" in plain.stderr
    assert "002_add_bets.sql" not in plain.stderr

    assert two_migrations.refuses("apply").splitlines() == message
    assert (two_migrations.tables(), two_migrations.applied()) == (["hands"], ["001_add_hands"])

    verbose = two_migrations.yoyo("apply", "-vv")

    assert "Traceback" in verbose.stderr
    assert message[0].split(": ")[0] in verbose.stderr


def test_a_file_that_cannot_be_used_stops_the_run_there(project: Project) -> None:
    """Plain yoyo skips it and applies the later ones."""
    project.write("001_add_hands", "-- depends: 000_gone\nCREATE TABLE hands (id INTEGER);")
    project.write("002_add_bets", "CREATE TABLE bets (id INTEGER);")

    assert "sql/001_add_hands.sql depends on 000_gone, which does not exist" in project.refuses("apply")
    assert project.is_untouched()


TRANSACTION_CONTROL = {
    "sqlite": [
        "COMMIT", "ROLLBACK", "BEGIN", "END", "SAVEPOINT a", "RELEASE a", "/* so */ commit", "-- so\nBegin",
    ],
    "postgresql": [
        "COMMIT", "ROLLBACK", "BEGIN", "END", "ABORT", "START TRANSACTION", "SAVEPOINT a", "RELEASE a",
        "PREPARE\tTRANSACTION 'a'", "/* so /* and */ so */ commit",
        # As standard SQL has it, a backslash ends no text; yoyo's splitter takes it for an escape.
        "SELECT 'back\\'; COMMIT; SELECT 'a'",
    ],
}  # fmt: skip


@per_engine(TRANSACTION_CONTROL)
def test_a_file_that_ends_its_transaction_is_refused(case: str, project: Project) -> None:
    """With plain yoyo, COMMIT keeps half a migration."""
    project.write("001_add_hands", f"CREATE TABLE hands (id INT);\n{case};\nCREATE TABLE hands (id INT);")
    message = project.refuses("apply")

    assert message.startswith(f"sql/001_add_hands.sql:{2 + case.count(chr(10))}: ")
    assert "would end the transaction" in message
    if case == "COMMIT":
        assert project.is_untouched() or is_server(project.database)
        assert project.tables() == []
        assert project.plain_yoyo("apply").returncode == 1
        assert (project.tables(), project.applied()) == (["hands"], [])


def test_a_user_without_a_name_may_migrate(two_migrations: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a container without a passwd entry plain yoyo fails after it has committed."""

    def nobody() -> str:
        raise KeyError("getpwuid(): uid not found: 4711")

    monkeypatch.setattr(getpass, "getuser", nobody)
    assert two_migrations.plain_yoyo("apply").returncode == 1
    assert (two_migrations.tables(), two_migrations.applied()) == (["hands"], [])

    two_migrations.run_sql("DROP TABLE hands")

    assert two_migrations.yoyo("apply").returncode == 0
    assert two_migrations.applied() == ["001_add_hands", "002_add_bets"]


# What no transaction may hold; and it can run twice.
OUTSIDE = {
    "sqlite": ("VACUUM;\nVACUUM;", "DROP TABLE bets;"),
    "postgresql": (
        "DROP INDEX CONCURRENTLY IF EXISTS by_id;\nCREATE INDEX CONCURRENTLY by_id ON bets (id);",
        "DROP INDEX CONCURRENTLY by_id;\nDROP TABLE bets;",
    ),
}


def test_a_migration_outside_a_transaction_can_be_run_again(engine: str, two_migrations: Project) -> None:
    """If it stops in the middle, that is recorded, and the same command starts it again."""
    statements, rollback = OUTSIDE[engine]
    path = two_migrations.write(
        "002_add_bets",
        "-- transactional: false\n-- depends: 001_add_hands\n"
        f"CREATE TABLE IF NOT EXISTS bets (id INTEGER);\n{statements}\nNONSENSE;",
        rollback,
    )
    interrupted = (
        "SELECT migration_id FROM _migration_text WHERE applied_at IS NULL AND apply_sql IS NOT NULL"
    )
    message = two_migrations.refuses("apply")

    assert message.startswith("sql/002_add_bets.sql:6: ")
    assert 'near "NONSENSE"' in message
    assert "its statements before line 6 were executed" in message
    assert (two_migrations.tables(), two_migrations.applied()) == (["bets", "hands"], ["001_add_hands"])
    assert two_migrations.query(interrupted) == [("002_add_bets",)]

    path.write_text(path.read_text().replace("NONSENSE;", ""))

    assert two_migrations.yoyo("apply").returncode == 0
    assert two_migrations.applied() == ["001_add_hands", "002_add_bets"]
    assert two_migrations.query(interrupted) == []
    assert two_migrations.yoyo("rollback").returncode == 0
    assert two_migrations.tables() == ["hands"]


def test_a_hook_runs_after_every_apply_and_is_never_recorded(two_migrations: Project) -> None:
    """yoyo's post-apply files: without a rollback, and only where something was applied."""
    two_migrations.write("post-apply", "INSERT INTO hands VALUES (1);", rollback=None)

    assert two_migrations.yoyo("apply").returncode == 0
    assert two_migrations.yoyo("apply").returncode == 0
    assert two_migrations.query("SELECT id FROM hands") == [(1,)]
    assert two_migrations.applied() == ["001_add_hands", "002_add_bets"]


def test_the_database_of_plain_yoyo_is_adopted(two_migrations: Project) -> None:
    """Nothing is kept of what it applied, and its lock row keeps nobody waiting."""
    assert two_migrations.plain_yoyo("apply", "-m", "001").returncode == 0
    two_migrations.run_sql("INSERT INTO yoyo_lock VALUES (1, '2026-01-05 18:12:01', 4711)")
    assert two_migrations.yoyo("apply").returncode == 0

    assert two_migrations.query(
        "SELECT migration_id, checksum IS NULL, apply_sql IS NULL FROM _migration_text ORDER BY 1"
    ) == [("002_add_bets", False, False)]
    assert two_migrations.yoyo("break-lock").returncode == 0
    assert two_migrations.query("SELECT count(*) FROM yoyo_lock") == [(0,)]


def test_plain_yoyo_goes_on_where_ours_stopped(two_migrations: Project) -> None:
    """It lists, rolls back and applies; and ours again after it, without a false alarm."""
    assert two_migrations.yoyo("apply").returncode == 0
    assert two_migrations.plain_yoyo("list").stdout.count("\nA ") == 2
    assert two_migrations.plain_yoyo("rollback").returncode == 0
    two_migrations.write(
        "002_add_bets", "-- depends: 001_add_hands\nCREATE TABLE bets (id TEXT);", "DROP TABLE bets;"
    )
    assert two_migrations.plain_yoyo("apply").returncode == 0
    assert two_migrations.yoyo("apply").returncode == 0
    assert two_migrations.yoyo("rollback", "--all").returncode == 0
    assert two_migrations.tables() == []


def test_marks_come_and_go_without_running_anything(two_migrations: Project) -> None:
    """In a database that holds no table yet."""
    if not is_server(two_migrations.database):
        two_migrations.run_sql("")  # which makes the file
    assert two_migrations.yoyo("mark").returncode == 0
    assert (two_migrations.tables(), two_migrations.applied()) == ([], ["001_add_hands", "002_add_bets"])
    assert two_migrations.yoyo("unmark").returncode == 0
    assert (two_migrations.tables(), two_migrations.applied()) == ([], [])


@pytest.mark.parametrize("command", ["apply", "rollback"])
def test_force_is_refused(command: str, two_migrations: Project) -> None:
    """It would keep what stands before the error."""
    assert "a partly applied migration" in two_migrations.refuses(command, "--force")


def test_a_revision_brings_what_it_depends_on_and_undoes_what_depends_on_it(two_migrations: Project) -> None:
    """yoyo's own filters would apply or undo one alone. Without a revision, batch mode undoes the last."""
    project = two_migrations
    assert project.yoyo("apply", "--revision", "002").returncode == 0
    assert project.applied() == ["001_add_hands", "002_add_bets"]
    assert "002_add_bets depends on 001_add_hands: roll back both with" in project.refuses(
        "rollback", "-m", "001"
    )
    assert project.yoyo("rollback", "--revision", "001").returncode == 0
    assert project.applied() == []
    assert "002_add_bets depends on 001_add_hands, which is not applied" in project.refuses(
        "apply", "-m", "002"
    )
    assert project.yoyo("apply").returncode == 0
    assert "rolled back 002_add_bets" in project.yoyo("rollback").stdout
    assert project.applied() == ["001_add_hands"]
    assert project.yoyo("develop", "-n", "2").returncode == 0
    assert project.applied() == ["001_add_hands", "002_add_bets"]
    assert project.yoyo("develop").returncode == 0
    assert project.applied() == ["001_add_hands", "002_add_bets"]
