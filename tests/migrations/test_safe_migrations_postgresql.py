"""PostgreSQL: where yoyo alone is silently wrong or stops in the middle, and ours not; locks, sessions."""

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import psycopg
import pytest

from poker_therapist.postgresql import backend as backend_module
from poker_therapist.postgresql.backend import AtomicPostgreSQLBackend
from tests.helpers.engines import query, run_sql
from tests.helpers.players import add_legacy_rows
from tests.helpers.postgresql import IDS, ROWS, locks, migrate, name_of, server_location, wait_for_rows
from tests.helpers.project import ServerProject
from tests.helpers.snapshots import applied, everything


@pytest.fixture
def project(tmp_path: Path, postgresql_url: str) -> ServerProject:
    """An empty project, and a database in which nothing is."""
    return ServerProject(tmp_path / "project", postgresql_url)


@pytest.fixture
def two_migrations(project: ServerProject) -> ServerProject:
    """A project with two migrations."""
    project.write_two()
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


@pytest.mark.parametrize("command", ["apply", "list", "rollback", "reapply", "mark", "unmark", "break-lock"])
def test_a_database_that_is_not_there_is_one_message_and_is_not_made(
    command: str, two_migrations: ServerProject
) -> None:
    url = two_migrations.url
    two_migrations.url = url.replace(name_of(url), "nowhere")
    message = two_migrations.refuses(command)

    assert message.startswith("there is no database postgresql://")
    assert "/nowhere" in message
    assert "createdb" in message
    assert query(url, "SELECT count(*) FROM pg_database WHERE datname = 'nowhere'") == [(0,)]


@pytest.mark.parametrize("command", ["apply", "list"])
def test_a_schema_that_is_not_there_is_one_message(
    command: str, two_migrations: ServerProject, reader: str
) -> None:
    """Or one that the role may not use: not an empty database, as it would seem."""
    assert two_migrations.yoyo("apply").returncode == 0
    two_migrations.run_sql(f"REVOKE USAGE ON SCHEMA public FROM {reader}, PUBLIC")

    for options in ("&schema=nowhere", as_role(reader)):
        assert "the schema in search_path does not exist" in two_migrations.refuses(command, options=options)


def test_listing_writes_nothing(two_migrations: ServerProject, reader: str) -> None:
    """A role that may only look can list, in a new database and in one in use; plain yoyo makes tables."""
    options = as_role(reader) + "%20-c%20default_transaction_read_only%3Don"
    listed = two_migrations.yoyo("list", options=options)

    assert (listed.returncode, listed.stderr) == (0, "")
    assert listed.stdout.count("\nU ") == 2
    assert two_migrations.query("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == [(0,)]
    assert two_migrations.plain_yoyo("list").returncode == 0
    assert two_migrations.query("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") != [(0,)]

    assert two_migrations.yoyo("apply").returncode == 0
    before = two_migrations.query("SELECT relname, xmin, relpages FROM pg_class ORDER BY 1")
    listed = two_migrations.yoyo("list", options=options)

    assert listed.stdout.count("\nA ") == 2
    assert two_migrations.query("SELECT relname, xmin, relpages FROM pg_class ORDER BY 1") == before


@pytest.mark.parametrize(
    ("statement", "says"),
    [
        ("SELECT $a$ open", 'unterminated dollar-quoted string at or near "$a$ open"'),
        ("CREATE TABLE open (", "syntax error at end of input"),
        ("COPY hands FROM STDIN", "COPY with STDIN or STDOUT cannot run in an SQL file: use INSERT"),
    ],
)
def test_a_statement_that_is_built_again_is_judged_by_its_own_text(
    statement: str, says: str, project: ServerProject
) -> None:
    """Beside a table that is there, a migration is built before it runs: with nothing of ours after it."""
    project.run_sql("CREATE TABLE hands (id INTEGER)")
    project.write("001_add_hands", f"CREATE TABLE IF NOT EXISTS hands (id INTEGER);\n{statement}")

    assert says in (message := project.refuses("apply"))
    assert "RELEASE" not in message


@pytest.mark.parametrize(
    ("statement", "says"),
    [
        ("DO $$ BEGIN COMMIT; END $$", "invalid transaction termination"),
        ("COPY hands FROM STDIN", "COPY with STDIN or STDOUT cannot run in an SQL file: use INSERT"),
        ("COPY (SELECT 1) TO STDOUT", "COPY with STDIN or STDOUT cannot run"),
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


def test_what_two_have_planned_is_applied_once_and_rolled_back_once(two_migrations: ServerProject) -> None:
    """The second comes when the first has done it, and does nothing."""
    with (
        AtomicPostgreSQLBackend(server_location(two_migrations.url)) as first,
        AtomicPostgreSQLBackend(server_location(two_migrations.url)) as second,
    ):
        sources = [str(two_migrations.sql)]
        plans = [one.to_apply(one.read(sources)) for one in (first, second)]
        first.apply_migrations(plans[0])
        second.apply_migrations(plans[1])
        plans = [one.to_rollback(one.read(sources)) for one in (first, second)]
        first.rollback_migrations(plans[0])
        second.rollback_migrations(plans[1])

    assert two_migrations.query("SELECT migration_id, operation FROM _yoyo_log ORDER BY created_at_utc") == [
        ("001_add_hands", "apply"),
        ("002_add_bets", "apply"),
        ("002_add_bets", "rollback"),
        ("001_add_hands", "rollback"),
    ]


def test_who_marks_waits_for_who_migrates(two_migrations: ServerProject) -> None:
    with AtomicPostgreSQLBackend(server_location(two_migrations.url)) as other, other.migration_lock():
        for command in ("mark", "unmark"):
            assert "another session is still migrating" in two_migrations.refuses(
                command, options="&timeout=0.1"
            )


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
    "a search path": "SELECT set_config('search_path', 'pg_catalog', FALSE);",
    "no search path": "SELECT set_config('search_path', '', FALSE);",
    "timeouts": "SET statement_timeout = 1; SET lock_timeout = 1; SET statement_timeout = 0;",
    "a time zone": "SET TimeZone = 'Asia/Tokyo';",
    "no triggers": "SET session_replication_role = replica;",
    "no writing": "SET default_transaction_read_only = ON;",
    "a variable": "SET app.mood = 'calm';",
    "a temporary table": "CREATE TEMP TABLE bets (id INT);",
    "a prepared statement": "PREPARE one AS SELECT 1;",
    "an advisory lock": "SELECT pg_advisory_lock(7);",
    "a cursor": "DECLARE one CURSOR WITH HOLD FOR SELECT 1;",
    "a channel": "LISTEN news;",
}


@pytest.mark.parametrize("transactional", ["true", "false"])
def test_what_a_migration_sets_for_its_session_ends_with_it(
    transactional: str, project: ServerProject, reader: str
) -> None:
    """It is recorded where the others are, and the next begins as if it were the first, in any command."""
    show = (
        "SELECT current_user, current_setting('search_path') AS path, current_setting('TimeZone') AS zone, "
        "current_setting('statement_timeout') AS statements, current_setting('lock_timeout') AS waits, "
        "current_setting('session_replication_role') AS triggers, to_regclass('bets') AS temporary, "
        "coalesce(current_setting('app.mood', TRUE), '') AS mood, "
        "(SELECT count(*) FROM pg_prepared_statements) AS prepared, (SELECT count(*) FROM pg_cursors WHERE "
        "is_holdable) AS held, (SELECT count(*) FROM pg_listening_channels()) AS channels, (SELECT count(*) "
        "FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()) AS locks"
    )
    project.run_sql(f"GRANT CREATE ON SCHEMA public TO {reader}; CREATE TABLE seen AS {show} LIMIT 0")
    project.run_sql("ALTER TABLE seen ADD COLUMN after TEXT")
    header = f"-- transactional: {transactional}\n"
    changes = {name: (header, f"{text.format(role=reader)}\nSELECT 1;") for name, text in SETTINGS.items()}
    written = project.write_changes(changes, f"INSERT INTO public.seen {show}, '{{}}';")

    for command in (("apply",), ("rollback", "--all"), ("apply",), ("reapply", "--all")):
        result = project.yoyo(*command)
        assert result.returncode == 0, result.stderr
    assert project.applied() == written
    first, *others = project.query("SELECT * FROM seen")
    assert len(others) + 1 == 5 * (len(changes) + 1)
    assert {row[-1] for row in others if row[:-1] != first[:-1]} == set()


@pytest.mark.parametrize("transactional", ["true", "false"])
def test_what_the_app_sets_for_its_sessions_holds_for_each_migration(
    transactional: str, reader: str, project: ServerProject
) -> None:
    """A role and a search path by `on_connect`: all tables and records are where the first are."""
    project.run_sql(f"CREATE SCHEMA rex; GRANT ALL ON SCHEMA rex TO {reader}")
    header = f"-- transactional: {transactional}\n"
    project.write("001_a", f"{header}RESET ROLE;\nRESET search_path;", f"{header}RESET ALL;")
    project.write("002_b", f"{header}-- depends: 001_a\nCREATE TABLE b ();", f"{header}DROP TABLE b;")

    def connected(connection: psycopg.Connection) -> None:
        connection.execute(f"SET ROLE {reader}; SET search_path = rex".encode())

    with AtomicPostgreSQLBackend(replace(server_location(project.url), on_connect=connected)) as backend:
        backend.apply_migrations(backend.to_apply(backend.read([str(project.sql)])))
        assert project.query(
            "SELECT DISTINCT schemaname, tableowner FROM pg_tables WHERE schemaname IN ('public', 'rex')"
        ) == [("rex", reader)]
        backend.rollback_migrations(backend.to_rollback(backend.read([str(project.sql)])))
    assert applied(project.url, "rex") == []


def test_a_table_that_somebody_keeps_locked_is_not_waited_for_long(
    two_migrations: ServerProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everybody who comes after the migration would wait as well; who is in the way can be found."""
    monkeypatch.setattr(backend_module, "TABLE_TIMEOUT", "300ms")
    assert two_migrations.yoyo("apply", "-m", "001").returncode == 0
    two_migrations.write(
        "002_add_bets", "-- depends: 001_add_hands\n\nALTER TABLE hands ADD COLUMN note TEXT;"
    )
    with psycopg.connect(two_migrations.url) as player:
        player.execute("SELECT id FROM hands WHERE 'secret' <> '' AND id > 7 AND 'trick\x1b' <> $$it$$")
        message = two_migrations.refuses("apply", options="&timeout=1")

        assert message.startswith("sql/002_add_bets.sql:3: postgresql://")
        pid = player.info.backend_pid
        assert f"It waited for session {pid} (idle in transaction, transaction since " in message
        assert message.endswith("): SELECT id FROM hands WHERE ? <> ? AND id > ? AND ? <> ?\n")
        assert "is locked (canceling statement due to lock timeout)" in message
        assert "pg_stat_activity" in message
    assert two_migrations.yoyo("apply").returncode == 0


def test_another_migration_that_takes_too_long_is_named(two_migrations: ServerProject) -> None:
    """After the time that the URL gives; nothing is done, and when it is over, it works."""
    with AtomicPostgreSQLBackend(server_location(two_migrations.url)) as other, other.migration_lock():
        message = two_migrations.refuses("apply", options="&timeout=0.1")

        assert message.startswith("another session is still migrating postgresql://")
        assert "after 0.1 seconds" in message
        assert two_migrations.tables() == []
        assert two_migrations.yoyo("list").returncode == 0
    assert two_migrations.yoyo("apply").returncode == 0


def test_who_waits_holds_no_snapshot_that_an_index_would_wait_for(two_migrations: ServerProject) -> None:
    """CREATE INDEX CONCURRENTLY waits for older snapshots: a wait inside a statement would be a deadlock."""
    assert two_migrations.yoyo("apply", "-m", "001").returncode == 0
    with AtomicPostgreSQLBackend(server_location(two_migrations.url)) as holder, holder.migration_lock():
        child = os.fork()
        if not child:
            os._exit(two_migrations.yoyo("apply").returncode)
        wait_for_rows(
            two_migrations.url,
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
            "AND query LIKE '%pg_try_advisory_lock%' AND pid NOT IN "
            "(SELECT pid FROM pg_locks WHERE locktype = 'advisory') AND pid <> pg_backend_pid()",
        )
        holder.connection.execute("SET lock_timeout = '5s'")
        holder.connection.execute("CREATE INDEX CONCURRENTLY by_id ON public.hands (id)")
    assert os.waitpid(child, 0)[1] == 0
    assert two_migrations.applied() == ["001_add_hands", "002_add_bets"]


def test_schemas_and_migration_tables_are_migrated_side_by_side(two_migrations: ServerProject) -> None:
    """Each has a lock and a record of its own."""
    two_migrations.run_sql("CREATE SCHEMA beside")
    with AtomicPostgreSQLBackend(server_location(two_migrations.url)) as other, other.migration_lock():
        for options in ([], ["--migration-table", "others"]):
            result = two_migrations.yoyo("apply", *options, options="&timeout=0.1&schema=beside")
            if not options:
                assert result.returncode == 0, result.stderr
        result = two_migrations.yoyo("apply", "--migration-table", "others", options="&timeout=0.1")

        assert result.returncode == 0, result.stderr
    assert applied(two_migrations.url, "beside") == ["001_add_hands", "002_add_bets"]
    assert two_migrations.query("SELECT count(*) FROM others") == [(2,)]
    assert two_migrations.applied() == []
    assert two_migrations.query("SELECT migration_table, count(*) FROM _migration_text GROUP BY 1") == [
        ("others", 2)
    ]


@pytest.mark.parametrize(
    ("transactional", "number", "said", "tables"),
    [
        (
            "true",
            signal.SIGINT,
            "yoyo: stopped while applying 002_add_bets: all its changes were undone\n",
            [],
        ),
        ("false", signal.SIGTERM, "yoyo: 002_add_bets: it was interrupted; finish it", ["bets"]),
    ],
)
def test_a_signal_ends_the_statement_and_what_is_left_is_said(
    transactional: str, number: int, said: str, tables: list[str], two_migrations: ServerProject
) -> None:
    two_migrations.write(
        "002_add_bets",
        f"-- transactional: {transactional}\n-- depends: 001_add_hands\n"
        "CREATE TABLE bets ();\nSELECT pg_sleep(60);",
    )
    child = os.fork()
    if not child:
        result = two_migrations.yoyo("apply")
        (two_migrations.folder / "said").write_text(result.stderr)
        os._exit(result.returncode)
    wait_for_rows(
        two_migrations.url, "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep(60)%'"
    )
    (command,) = psutil.Process(child).children()
    command.send_signal(number)
    os.waitpid(child, 0)

    assert said in (two_migrations.folder / "said").read_text()
    assert two_migrations.tables() == sorted(["hands", *tables])
    assert two_migrations.applied() == ["001_add_hands"]
    assert locks(two_migrations.url) == []


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
