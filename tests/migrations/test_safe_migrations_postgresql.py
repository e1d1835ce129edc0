"""PostgreSQL: where yoyo alone is silently wrong or stops in the middle, and ours not; locks, sessions."""

import getpass
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest

from poker_therapist import SchemaTooNew, get_pattern_storage
from poker_therapist.postgresql import backend as backend_module
from poker_therapist.postgresql.backend import AtomicPostgreSQLBackend
from tests.helpers.engines import query, run_sql
from tests.helpers.players import add_legacy_rows
from tests.helpers.postgresql import (
    FOLDER,
    IDS,
    ROWS,
    interrupted,
    locks,
    migrate,
    name_of,
    server_location,
    wait_for_rows,
)
from tests.helpers.project import ServerProject
from tests.helpers.snapshots import applied, everything


@pytest.fixture
def project(tmp_path: Path, postgresql_url: str) -> ServerProject:
    """An empty project, and a database in which nothing is."""
    return ServerProject(tmp_path / "project", postgresql_url)


@pytest.fixture
def two(project: ServerProject) -> ServerProject:
    """A project with two migrations."""
    project.write("001_add_hands", "CREATE TABLE hands (id INT PRIMARY KEY);", "DROP TABLE hands;")
    project.write(
        "002_add_bets", "-- depends: 001_add_hands\nCREATE TABLE bets (id INT);", "DROP TABLE bets;"
    )
    return project


@pytest.fixture
def reader(postgresql_url: str) -> Iterator[str]:
    """A role that may look at the tables of a database, those to come as well, and do nothing else."""
    role = f"{name_of(postgresql_url)}_reader"
    run_sql(
        postgresql_url,
        f"CREATE ROLE {role}; GRANT USAGE ON SCHEMA public TO {role};"
        f"ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO {role}",
    )
    yield role
    run_sql(postgresql_url, f"DROP OWNED BY {role}; DROP ROLE {role}")


def as_role(role: str) -> str:
    """Return the option of a URL under which a session is another role's."""
    return f"&options=-c%20role%3D{role}"


def test_a_missing_rollback_file_is_refused(project: ServerProject) -> None:
    """Plain yoyo says that it rolled back, and the table is still there."""
    path = project.write("001_add_hands", "CREATE TABLE hands (id INT);", rollback=None)
    assert project.yoyo("apply", scheme="postgresql+psycopg").returncode == 0
    assert project.yoyo("rollback", scheme="postgresql+psycopg").returncode == 0
    assert (project.tables(), project.applied()) == (["hands"], [])

    project.run_sql("DROP TABLE hands")

    assert "sql/001_add_hands.rollback.sql is missing" in project.refuses("apply")

    project.write("001_add_hands", path.read_text(), "DROP TABLE hands;")
    assert project.yoyo("apply").returncode == 0
    (project.sql / "001_add_hands.rollback.sql").unlink()

    assert "sql/001_add_hands.rollback.sql is missing" in project.refuses("rollback")
    assert project.applied() == ["001_add_hands"]


@pytest.mark.parametrize("half", ["", ".rollback"])
def test_an_edited_file_is_refused_and_the_change_is_shown(half: str, two: ServerProject) -> None:
    """Plain yoyo does not notice; ours says what changed, and how to accept it."""
    assert two.yoyo("apply").returncode == 0
    edited = two.sql / f"001_add_hands{half}.sql"
    edited.write_text(edited.read_text() + "\n-- seen by Ann\n")

    assert two.yoyo("apply", scheme="postgresql+psycopg").returncode == 0
    for command in ("apply", "reapply", "rollback"):
        message = two.refuses(command, "--all")

        assert f"sql/001_add_hands{half}.sql" in message
        assert "+-- seen by Ann" in message
        assert "Restore the file" in message

    assert two.yoyo("unmark", "-m", "^001_add_hands$").stdout == "unmarked 001_add_hands\n"
    assert two.yoyo("mark", "-m", "^001_add_hands$").stdout == "marked 001_add_hands as applied\n"
    assert two.yoyo("apply").returncode == 0
    assert two.tables() == ["bets", "hands"]


def test_a_migration_whose_file_is_gone_is_listed_and_rolled_back_from_its_text(two: ServerProject) -> None:
    assert two.yoyo("apply").returncode == 0
    for file in two.sql.glob("002*"):
        file.unlink()

    assert "002_add_bets" not in two.yoyo("list", scheme="postgresql+psycopg").stdout
    assert "002_add_bets   (kept in the database)" in two.yoyo("list").stdout
    assert two.yoyo("rollback").returncode == 0
    assert (two.tables(), two.applied()) == (["hands"], ["001_add_hands"])


def test_a_newer_database_is_refused_by_the_storage_and_brought_back_by_one_command(
    tmp_path: Path, migrated_postgresql_url: str
) -> None:
    """The ids that are too new are named; `yoyo rollback --revision` takes them back."""
    newer = ServerProject(tmp_path / "newer", migrated_postgresql_url)
    shutil.copytree(FOLDER, newer.sql, dirs_exist_ok=True)
    newer.write("005_add_mood", f"-- depends: {IDS[-1]}\nCREATE TABLE mood ();", "DROP TABLE mood;")
    newer.write("006_add_day", "-- depends: 005_add_mood\nCREATE TABLE day ();", "DROP TABLE day;")
    assert newer.yoyo("apply").returncode == 0

    with pytest.raises(SchemaTooNew, match="005_add_mood, 006_add_day"):
        get_pattern_storage(migrated_postgresql_url)

    assert migrate(["rollback", "--revision", "005"], migrated_postgresql_url).code == 0
    assert newer.applied() == IDS
    get_pattern_storage(migrated_postgresql_url).close()


@pytest.mark.parametrize("command", ["apply", "list", "rollback", "reapply", "mark", "unmark", "break-lock"])
def test_a_database_that_is_not_there_is_one_message_and_is_not_made(
    command: str, two: ServerProject
) -> None:
    url = two.url
    two.url = url.replace(name_of(url), "nowhere")
    message = two.refuses(command)

    assert message.startswith("there is no database postgresql://")
    assert "/nowhere" in message
    assert "createdb" in message
    assert query(url, "SELECT count(*) FROM pg_database WHERE datname = 'nowhere'") == [(0,)]


@pytest.mark.parametrize("command", ["apply", "list"])
def test_a_schema_that_is_not_there_is_one_message(command: str, two: ServerProject, reader: str) -> None:
    """Or one that the role may not use: not an empty database, as it would seem."""
    assert two.yoyo("apply").returncode == 0
    two.run_sql(f"REVOKE USAGE ON SCHEMA public FROM {reader}, PUBLIC")

    for options in ("&schema=nowhere", as_role(reader)):
        assert "lacks the schema that search_path names" in two.refuses(command, options=options)


def test_listing_writes_nothing(two: ServerProject, reader: str) -> None:
    """A role that may only look can list, in a new database and in one in use; plain yoyo makes tables."""
    options = as_role(reader) + "%20-c%20default_transaction_read_only%3Don"
    listed = two.yoyo("list", options=options)

    assert (listed.returncode, listed.stderr) == (0, "")
    assert listed.stdout.count("\nU ") == 2
    assert two.query("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == [(0,)]
    assert two.yoyo("list", scheme="postgresql+psycopg").returncode == 0
    assert two.query("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") != [(0,)]

    assert two.yoyo("apply").returncode == 0
    before = two.query("SELECT relname, xmin, relpages FROM pg_class ORDER BY 1")
    listed = two.yoyo("list", options=options)

    assert listed.stdout.count("\nA ") == 2
    assert two.query("SELECT relname, xmin, relpages FROM pg_class ORDER BY 1") == before


@pytest.mark.parametrize("sources", [["sqll"], ["sql", "sqll"], ["sql/empty"]])
def test_a_source_that_yields_no_migration_is_refused(sources: list[str], two: ServerProject) -> None:
    (two.sql / "empty").mkdir()

    assert f"there is no migration in {sources[-1]}" in two.refuses("apply", sources=sources)
    assert two.tables() == []


LONG = """-- What was bet.
-- depends: 001_add_hands

CREATE TABLE bets (id INT);

INSERT INTO bets
SELECT
    hands.id
FROM hands
WHERE
    hands.number > 1;
"""


def test_a_sql_error_is_one_message_with_the_line_inside_the_statement(two: ServerProject) -> None:
    """Plain yoyo prints a traceback without file or line; -vv of ours still shows it, too."""
    two.write("002_add_bets", LONG, "DROP TABLE bets;")
    plain = two.yoyo("apply", scheme="postgresql+psycopg")

    assert "Traceback" in plain.stderr
    assert "002_add_bets.sql" not in plain.stderr

    message = two.refuses("apply")

    assert message.splitlines() == [
        "sql/002_add_bets.sql:11: column hands.number does not exist",
        "    INSERT INTO bets SELECT hands.id FROM hands WHERE hands.number > 1;",
        "Nothing of 002_add_bets was kept.",
    ]
    assert (two.tables(), two.applied()) == (["hands"], ["001_add_hands"])

    verbose = two.yoyo("apply", "-vv")

    assert "Traceback" in verbose.stderr
    assert "sql/002_add_bets.sql:11" in verbose.stderr


def test_a_file_that_cannot_be_used_stops_the_run_there(project: ServerProject) -> None:
    """Plain yoyo skips it and applies the later ones."""
    project.write("001_add_hands", "-- depends: 000_gone\nCREATE TABLE hands (id INT);")
    project.write("002_add_bets", "CREATE TABLE bets (id INT);")

    assert "sql/001_add_hands.sql depends on 000_gone, which is not there" in project.refuses("apply")
    assert project.tables() == []


@pytest.mark.parametrize(
    "control",
    [
        "COMMIT", "ROLLBACK", "BEGIN", "END", "ABORT", "START TRANSACTION", "SAVEPOINT a", "RELEASE a",
        "PREPARE\tTRANSACTION 'a'", "/* so /* and */ so */ commit",
        # As standard SQL has it, a backslash ends no text; yoyo's splitter takes it for an escape.
        "SELECT 'back\\'; COMMIT; SELECT 'a'",
    ],
)  # fmt: skip
def test_a_file_that_ends_its_transaction_is_refused(control: str, project: ServerProject) -> None:
    """With plain yoyo, COMMIT keeps half a migration."""
    project.write("001_add_hands", f"CREATE TABLE hands (id INT);\n{control};\nCREATE TABLE hands (id INT);")
    if control == "COMMIT":
        assert project.yoyo("apply", scheme="postgresql+psycopg").returncode == 1
        assert (project.tables(), project.applied()) == (["hands"], [])
        project.run_sql("DROP TABLE hands")

    assert "sql/001_add_hands.sql:2: " in (message := project.refuses("apply"))
    assert "would end the transaction" in message
    assert project.tables() == []


@pytest.mark.parametrize(
    ("statement", "says"),
    [
        ("DO $$ BEGIN COMMIT; END $$", "invalid transaction termination"),
        ("COPY hands FROM STDIN", "COPY waits for rows that no file of SQL brings: use INSERT"),
        ("COPY (SELECT 1) TO STDOUT", "COPY waits for rows"),
        ("CREATE INDEX CONCURRENTLY a ON hands (id)", "cannot run inside a transaction block"),
        ("VACUUM", "cannot run inside a transaction block"),
        ("INSERT INTO hands VALUES (1)", '"hands_pkey" (Key (id)=(1) already exists)'),
        ("SELECT 1 / 0", "division by zero"),
        ("SELECT 'open", "unterminated quoted string"),
        ("CREATE TABLE open (", 'syntax error at or near ";"'),
    ],
)
def test_what_no_transaction_can_keep_is_refused_whole(
    statement: str, says: str, project: ServerProject
) -> None:
    """With its place; nothing is kept, and the next command works."""
    project.write(
        "001_add_hands",
        f"CREATE TABLE hands (id INT PRIMARY KEY);\nINSERT INTO hands VALUES (1);\n{statement};",
    )
    message = project.refuses("apply")

    assert message.startswith("sql/001_add_hands.sql:3: ")
    assert says in message
    assert project.tables() == []
    assert project.yoyo("list").returncode == 0


@pytest.mark.parametrize("direction", ["apply", "rollback"])
def test_a_foreign_key_that_only_the_commit_would_check_is_checked_before(
    direction: str, project: ServerProject
) -> None:
    """So the message names the migration, and the row."""
    harm = "DELETE FROM hands;"
    apply, rollback = (harm, "SELECT 1;") if direction == "apply" else ("SELECT 1;", harm)
    project.write(
        "001_add_hands",
        "CREATE TABLE hands (id INT PRIMARY KEY);\nINSERT INTO hands VALUES (7);\n"
        "CREATE TABLE bets (hand INT REFERENCES hands (id) DEFERRABLE INITIALLY DEFERRED);\n"
        "INSERT INTO bets VALUES (7);",
    )
    project.write("002_harm", "-- depends: 001_add_hands\n" + apply, rollback)
    if direction == "apply":
        assert project.yoyo("apply", "-m", "001").returncode == 0
    else:
        assert project.yoyo("apply").returncode == 0
    before = everything(project.url)
    message = project.refuses(direction)

    assert message.startswith(f"sql/002_harm{'.rollback' if direction == 'rollback' else ''}.sql: ")
    assert 'Key (id)=(7) is still referenced from table "bets"' in message
    assert everything(project.url) == before


def test_a_user_without_a_name_may_migrate(two: ServerProject, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a container without a passwd entry plain yoyo fails after it has committed."""

    def nobody() -> str:
        raise KeyError("getpwuid(): uid not found: 4711")

    monkeypatch.setattr(getpass, "getuser", nobody)
    assert two.yoyo("apply", scheme="postgresql+psycopg").returncode == 1
    assert (two.tables(), two.applied()) == (["hands"], [])

    two.run_sql("DROP TABLE hands")

    assert two.yoyo("apply").returncode == 0
    assert two.applied() == ["001_add_hands", "002_add_bets"]


def test_what_two_have_planned_is_applied_once_and_rolled_back_once(two: ServerProject) -> None:
    """The second comes when the first has done it, and does nothing."""
    with (
        AtomicPostgreSQLBackend(server_location(two.url)) as first,
        AtomicPostgreSQLBackend(server_location(two.url)) as second,
    ):
        sources = [str(two.sql)]
        plans = [one.to_apply(one.read(sources)) for one in (first, second)]
        first.apply_migrations(plans[0])
        second.apply_migrations(plans[1])
        plans = [one.to_rollback(one.read(sources)) for one in (first, second)]
        first.rollback_migrations(plans[0])
        second.rollback_migrations(plans[1])

    assert two.query("SELECT migration_id, operation FROM _yoyo_log ORDER BY created_at_utc") == [
        ("001_add_hands", "apply"),
        ("002_add_bets", "apply"),
        ("002_add_bets", "rollback"),
        ("001_add_hands", "rollback"),
    ]


def test_a_hook_runs_after_every_apply_and_is_never_recorded(two: ServerProject) -> None:
    """yoyo's post-apply files: without a rollback, and only where something was applied."""
    two.write("post-apply", "INSERT INTO hands VALUES (1);", rollback=None)

    assert two.yoyo("apply").returncode == 0
    assert two.yoyo("apply").returncode == 0
    assert two.query("SELECT id FROM hands") == [(1,)]
    assert two.applied() == ["001_add_hands", "002_add_bets"]


def test_plain_yoyo_s_database_is_taken_over(two: ServerProject) -> None:
    """Its history is recorded as unverified, and its lock row is in nobody's way."""
    assert two.yoyo("apply", "-m", "001", scheme="postgresql+psycopg").returncode == 0
    two.run_sql("INSERT INTO yoyo_lock VALUES (1, now(), 4711)")
    assert two.yoyo("apply").returncode == 0

    assert two.query(
        "SELECT migration_id, checksum IS NULL, apply_sql IS NULL FROM _migration_text ORDER BY 1"
    ) == [("001_add_hands", True, True), ("002_add_bets", False, False)]
    assert two.yoyo("break-lock").returncode == 0
    assert two.query("SELECT count(*) FROM yoyo_lock") == [(0,)]


def test_plain_yoyo_goes_on_where_ours_stopped(two: ServerProject) -> None:
    """It lists, rolls back and applies; and ours again after it, without a false alarm."""
    assert two.yoyo("apply").returncode == 0
    assert two.yoyo("list", scheme="postgresql+psycopg").stdout.count("\nA ") == 2
    assert two.yoyo("rollback", scheme="postgresql+psycopg").returncode == 0
    two.write("002_add_bets", "-- depends: 001_add_hands\nCREATE TABLE bets (id TEXT);", "DROP TABLE bets;")
    assert two.yoyo("apply", scheme="postgresql+psycopg").returncode == 0
    assert two.yoyo("apply").returncode == 0
    assert two.yoyo("rollback", "--all").returncode == 0
    assert two.tables() == []


def test_marks_come_and_go_without_running_anything(two: ServerProject) -> None:
    """In a database in which nothing is as well."""
    assert two.yoyo("mark").returncode == 0
    assert (two.tables(), two.applied()) == ([], ["001_add_hands", "002_add_bets"])
    assert two.yoyo("unmark").returncode == 0
    assert (two.tables(), two.applied()) == ([], [])


def test_who_marks_waits_for_who_migrates(two: ServerProject) -> None:
    with AtomicPostgreSQLBackend(server_location(two.url)) as other, other.migration_lock():
        for command in ("mark", "unmark"):
            assert "somebody else has been migrating" in two.refuses(command, options="&timeout=0.1")


def test_force_is_refused(two: ServerProject) -> None:
    for command in ("apply", "rollback"):
        assert "half of a migration" in two.refuses(command, "--force")


def test_a_revision_brings_what_it_rests_on_and_takes_what_rests_on_it(two: ServerProject) -> None:
    """And without one, batch mode takes back the last alone."""
    assert two.yoyo("apply", "--revision", "002").returncode == 0
    assert two.applied() == ["001_add_hands", "002_add_bets"]
    assert two.yoyo("rollback", "--revision", "001").returncode == 0
    assert two.applied() == []
    assert two.yoyo("apply").returncode == 0
    assert "rolled back 002_add_bets" in two.yoyo("rollback").stdout
    assert two.applied() == ["001_add_hands"]
    assert "002_add_bets depends on 001_add_hands, which is not applied" in (
        two.refuses("apply", "-m", "002") if two.yoyo("rollback").returncode == 0 else ""
    )
    assert two.yoyo("develop").returncode == 0
    assert two.applied() == ["001_add_hands", "002_add_bets"]
    assert two.yoyo("develop", "-n", "2").returncode == 0
    assert "001_add_hands: roll that back first" in two.refuses("rollback", "-m", "001")


HARD = """-- A comment; with semicolons; and 'quotes
CREATE TABLE spots (name TEXT, note TEXT DEFAULT ';', "odd;name" TEXT); -- after it; too
/* a block; /* and one inside; */
   goes on; */
INSERT INTO spots (name, note) VALUES ('a;b', '$1 %s %(x)s :name ? ''quoted''; --no comment');
CREATE FUNCTION noted() RETURNS TRIGGER LANGUAGE plpgsql AS $body$
BEGIN
    IF new.note IS NULL THEN -- it's;
        new.note := $$end;$$ || '%';
    END IF;
    RETURN new;
END;
$body$;
CREATE TRIGGER spots_noted BEFORE INSERT ON spots FOR EACH ROW EXECUTE FUNCTION noted();
CREATE FUNCTION how_many() RETURNS BIGINT LANGUAGE sql BEGIN ATOMIC
    SELECT CASE WHEN count(*) > 0 THEN count(*) END FROM spots;
    SELECT count(*) FROM spots;
END;
CREATE RULE twice AS ON DELETE TO spots DO ALSO (SELECT 1; SELECT 2);
DO $$ DECLARE done INT; BEGIN done := 1; PERFORM done; END $$;
;;
INSERT INTO spots (name) VALUES ('back\\slash\\');
INSERT INTO spots (name, note) VALUES (E'it\\'s;\\t', NULL), (U&'\\2660;', 'naïve ♠');
SELECT name FROM spots WHERE name LIKE 'a%' AND 7 % 2 = 1"""


@pytest.mark.parametrize("form", ["as it is", "CRLF", "tabs"])
def test_statements_are_split_where_postgresql_says(form: str, project: ServerProject) -> None:
    """Functions, rules, nested comments, $ and % and : and ? in literals, no semicolon at the end."""
    text = {
        "as it is": HARD,
        "CRLF": HARD.replace("\n", "\r\n"),
        "tabs": HARD.replace("    ", "\t").replace("INSERT INTO", "INSERT\tINTO"),
    }[form]
    rollback = "DROP FUNCTION how_many;\nDROP TABLE spots;\nDROP FUNCTION noted;"
    project.write("001_add_spots", "", rollback).write_bytes(text.encode())
    result = project.yoyo("apply")

    assert result.returncode == 0, result.stderr
    assert project.query("SELECT name, note FROM spots") == [
        ("a;b", "$1 %s %(x)s :name ? 'quoted'; --no comment"),
        ("back\\slash\\", ";"),
        ("it's;\t", "end;%"),
        ("♠;", "naïve ♠"),
    ]
    assert project.query("SELECT how_many()") == [(4,)]
    assert project.yoyo("rollback").returncode == 0
    assert project.tables() == []


def test_a_checkout_of_another_system_is_the_same_migration(two: ServerProject) -> None:
    """CRLF line ends and blanks at the end of lines are no edit."""
    assert two.yoyo("apply").returncode == 0
    for file in two.sql.iterdir():
        file.write_bytes(file.read_bytes().replace(b"\n", b"  \r\n"))

    assert two.yoyo("apply").returncode == 0


def test_a_migration_outside_a_transaction_can_be_run_again(two: ServerProject) -> None:
    """If it stops in the middle, that is recorded, and the same command starts it again."""
    two.write(
        "002_add_bets",
        "-- transactional: false\n-- depends: 001_add_hands\n"
        "CREATE TABLE IF NOT EXISTS bets (id INT);\n"
        "DROP INDEX CONCURRENTLY IF EXISTS by_id;\nCREATE INDEX CONCURRENTLY by_id ON bets (id);\nNONSENSE;",
        "DROP INDEX CONCURRENTLY by_id;\nDROP TABLE bets;",
    )
    message = two.refuses("apply")

    assert message.startswith('sql/002_add_bets.sql:6: syntax error at or near "NONSENSE"')
    assert "what stands before line 6 has been done" in message
    assert (two.tables(), two.applied()) == (["bets", "hands"], ["001_add_hands"])
    assert interrupted(two.url) == ["002_add_bets"]

    path = two.sql / "002_add_bets.sql"
    path.write_text(path.read_text().replace("NONSENSE;", ""))

    assert two.yoyo("apply").returncode == 0
    assert (two.applied(), interrupted(two.url)) == (["001_add_hands", "002_add_bets"], [])
    assert two.yoyo("rollback").returncode == 0
    assert two.tables() == ["hands"]


def test_a_transaction_of_its_own_that_fails_is_undone(project: ServerProject) -> None:
    """Outside ours a migration may have one; the error that is told is the first."""
    project.write(
        "001_add_hands",
        "-- transactional: false\nBEGIN;\nCREATE TABLE hands (id INT);\nSELECT 1 / 0;\nCOMMIT;",
    )
    message = project.refuses("apply")

    assert message.startswith("sql/001_add_hands.sql:4: division by zero")
    assert project.tables() == []
    assert locks(project.url) == []


SETTINGS = {
    "a role": "SET ROLE {role};",
    "a search path": "CREATE SCHEMA elsewhere;\nSELECT set_config('search_path', 'elsewhere', FALSE);",
    "no search path": "SELECT set_config('search_path', '', FALSE);",
    "timeouts": "SET statement_timeout = 1; SET lock_timeout = 1; SET statement_timeout = 0;",
    "a time zone": "SET TimeZone = 'Asia/Tokyo';",
}


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("transactional", ["true", "false"])
def test_what_a_migration_sets_for_its_session_ends_with_it(
    setting: str, transactional: str, two: ServerProject, reader: str
) -> None:
    """It is recorded where the others are, and the next begins as if it were the first."""
    two.run_sql(f"GRANT CREATE ON SCHEMA public TO {reader}")
    show = (
        "SELECT current_user, current_schemas(FALSE), current_setting('TimeZone') AS zone, "
        "current_setting('statement_timeout') AS statements, current_setting('lock_timeout') AS locks"
    )
    two.write("000_note", f"CREATE TABLE seen AS {show};", "DROP TABLE seen;")
    two.write(
        "001_add_hands",
        f"-- transactional: {transactional}\n-- depends: 000_note\n{SETTINGS[setting].format(role=reader)}\n"
        "SELECT 1;",
    )
    two.write("002_add_bets", f"-- depends: 001_add_hands\nINSERT INTO seen {show};")
    result = two.yoyo("apply")

    assert result.returncode == 0, result.stderr
    assert two.applied() == ["000_note", "001_add_hands", "002_add_bets"]
    assert len(two.query("SELECT DISTINCT * FROM seen")) == 1


def test_a_table_that_somebody_keeps_locked_is_not_waited_for_long(
    two: ServerProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everybody who comes after the migration would wait as well; who is in the way can be found."""
    monkeypatch.setattr(backend_module, "_TABLE_TIMEOUT", "50ms")
    assert two.yoyo("apply", "-m", "001").returncode == 0
    two.write("002_add_bets", "-- depends: 001_add_hands\n\nALTER TABLE hands ADD COLUMN note TEXT;")
    with psycopg.connect(two.url) as player:
        player.execute("SELECT * FROM hands")
        message = two.refuses("apply")

        assert message.startswith("sql/002_add_bets.sql:3: postgresql://")
        assert "stayed locked (canceling statement due to lock timeout)" in message
        assert "pg_stat_activity" in message
    assert two.yoyo("apply").returncode == 0


def test_another_migration_that_takes_too_long_is_named(two: ServerProject) -> None:
    """After the time that the URL gives; nothing is done, and when it is over, it works."""
    with AtomicPostgreSQLBackend(server_location(two.url)) as other, other.migration_lock():
        message = two.refuses("apply", options="&timeout=0.1")

        assert message.startswith("somebody else has been migrating postgresql://")
        assert "for 0.1 seconds" in message
        assert two.tables() == []
        assert two.yoyo("list").returncode == 0
    assert two.yoyo("apply").returncode == 0


def test_who_waits_holds_no_snapshot_that_an_index_would_wait_for(two: ServerProject) -> None:
    """CREATE INDEX CONCURRENTLY waits for older snapshots: a wait inside a statement would be a deadlock."""
    assert two.yoyo("apply", "-m", "001").returncode == 0
    with AtomicPostgreSQLBackend(server_location(two.url)) as holder, holder.migration_lock():
        child = os.fork()
        if not child:
            os._exit(two.yoyo("apply").returncode)
        wait_for_rows(
            two.url,
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
            "AND query LIKE '%pg_try_advisory_lock%' AND pid NOT IN "
            "(SELECT pid FROM pg_locks WHERE locktype = 'advisory') AND pid <> pg_backend_pid()",
        )
        holder.connection.execute("SET lock_timeout = '5s'")
        holder.connection.execute("CREATE INDEX CONCURRENTLY by_id ON hands (id)")
    assert os.waitpid(child, 0)[1] == 0
    assert two.applied() == ["001_add_hands", "002_add_bets"]


def test_schemas_and_migration_tables_are_migrated_side_by_side(two: ServerProject) -> None:
    """Each has a lock and a record of its own."""
    two.run_sql("CREATE SCHEMA beside")
    with AtomicPostgreSQLBackend(server_location(two.url)) as other, other.migration_lock():
        for options in ([], ["--migration-table", "others"]):
            result = two.yoyo("apply", *options, options="&timeout=0.1&schema=beside")
            if not options:
                assert result.returncode == 0, result.stderr
        result = two.yoyo("apply", "--migration-table", "others", options="&timeout=0.1")

        assert result.returncode == 0, result.stderr
    assert applied(two.url, "beside") == ["001_add_hands", "002_add_bets"]
    assert two.query("SELECT count(*) FROM others") == [(2,)]
    assert two.applied() == []
    assert two.query("SELECT migration_table, count(*) FROM _migration_text GROUP BY 1") == [("others", 2)]


def test_ctrl_c_undoes_the_migration_and_says_so(two: ServerProject) -> None:
    two.write("002_add_bets", "-- depends: 001_add_hands\nCREATE TABLE bets ();\nSELECT pg_sleep(60);")
    child = os.fork()
    if not child:
        result = two.yoyo("apply")
        (two.folder / "said").write_text(result.stderr)
        os._exit(result.returncode)
    wait_for_rows(two.url, "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep(60)%'")
    (command,) = psutil.Process(child).children()
    command.send_signal(signal.SIGINT)
    os.waitpid(child, 0)

    assert "stopped; a migration that was not finished has been undone" in (two.folder / "said").read_text()
    assert (two.tables(), two.applied()) == (["hands"], ["001_add_hands"])
    assert locks(two.url) == []


@pytest.mark.parametrize("name", IDS)
def test_up_down_up_gives_schema_and_rows_back_each_time(name: str, postgresql_url: str) -> None:
    """On a database with rows in every table that there is at the version before."""
    place_of = IDS.index(name)
    if place_of:
        assert migrate(["apply", "--revision", IDS[place_of - 1]], postgresql_url).code == 0
        run_sql(postgresql_url, ROWS)
    if place_of > 1:
        add_legacy_rows(postgresql_url)
    states = [everything(postgresql_url)]
    for command in ("apply", "rollback", "apply", "rollback"):
        assert migrate([command, "--revision", name], postgresql_url).code == 0
        states.append(everything(postgresql_url))

    assert states[0] == states[2] == states[4]
    assert states[1] == states[3] != states[0]
    assert bool(place_of) == any(states[0].rows.values())
