"""yoyo.postgresql.ini and yoyo.citus.ini as an operator runs them: PG* variables, passwords, TLS, Citus."""

import os
import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import conninfo, sql

from poker_therapist import SchemaTooNew, get_pattern_storage
from poker_therapist.postgresql.catalog import describe
from tests.helpers.checkout import ROOT
from tests.helpers.cli import Result
from tests.helpers.engines import run_sql
from tests.helpers.migrating import yoyo_command
from tests.helpers.postgresql import CITUS, IDS, ROWS, migrate, yoyo_in_child
from tests.helpers.queries import ON_POSTGRESQL as QUERIES
from tests.helpers.server import Server
from tests.helpers.snapshots import applied, everything

PASSWORD = "s3cret♠ word"
COORDINATOR = "POKER_THERAPIST_TEST_CITUS"

VARIABLES = {
    "host": "PGHOST",
    "port": "PGPORT",
    "user": "PGUSER",
    "password": "PGPASSWORD",
    "dbname": "PGDATABASE",
}


def surroundings(url: str) -> dict[str, str]:
    """Return the variables that lead to a database."""
    given = conninfo.conninfo_to_dict(url)
    return {VARIABLES[key]: str(value) for key, value in given.items() if key in VARIABLES}


def yoyo(*arguments: str, environment: dict[str, str], ini: str = "postgresql") -> Result:
    """Run yoyo in the checkout with one of its settings."""
    return yoyo_in_child("-c", f"yoyo.{ini}.ini", *arguments, folder=ROOT, environment=environment)


def refused(*arguments: str, environment: dict[str, str], ini: str = "postgresql") -> str:
    """Run yoyo, check that it ends in one message and no traceback, and return that."""
    ran = yoyo(*arguments, environment=environment, ini=ini)

    assert ran.code == 1
    assert ran.error.startswith("yoyo: ")
    assert ran.error.count("yoyo: ") == 1
    assert "Traceback" not in ran.error + ran.out
    return ran.error


@pytest.mark.slow
def test_the_commands_of_yoyo_work_by_the_variables_alone(postgresql_url: str) -> None:
    """As the operator types them, and no database or password stands in the file."""
    environment = surroundings(postgresql_url)
    first = yoyo_command("-c", "yoyo.postgresql.ini", "apply", folder=ROOT, environment=environment)

    assert (first.returncode, first.stderr) == (0, "")
    assert first.stdout.splitlines() == [f"applied {name}" for name in IDS]
    built = everything(postgresql_url)
    for command, said, left in (
        (["list"], "A         001", IDS),
        (["rollback"], f"rolled back {IDS[-1]}", IDS[:-1]),
        (["reapply", "--all"], f"rolled back {IDS[0]}", IDS[:-1]),
        (["develop"], f"[{IDS[-1]}]", IDS),
        (["develop", "-n", "2"], f"[{IDS[-2]}]", IDS),
        (["unmark", "-m", IDS[-1][:3]], f"unmarked {IDS[-1]}", IDS[:-1]),
        (["mark"], f"marked {IDS[-1]} as applied", IDS),
        (["break-lock"], "", IDS),
        (["rollback", "--revision", "002"], f"rolled back {IDS[1]}", IDS[:1]),
        (["apply", "--revision", "003"], f"applied {IDS[2]}", IDS[:3]),
        (["apply"], f"applied {IDS[-1]}", IDS),
    ):
        ran = yoyo(*command, environment=environment)

        assert ran.code == 0, ran
        assert said in ran.out, ran
        assert applied(postgresql_url) == left, ran
    assert everything(postgresql_url) == built
    assert yoyo("rollback", "--all", environment=environment).code == 0
    assert describe_nothing(postgresql_url)


def describe_nothing(url: str) -> bool:
    with psycopg.connect(url) as connection:
        return not describe(connection, "public").facts()


WRONG = {
    "PGHOST": ("/nowhere", "cannot be reached"),
    "PGPORT": ("1", "cannot be reached"),
    "PGUSER": ("nobody_of_that_name", "rejected this user"),
    "PGDATABASE": ("nowhere", "there is no database postgresql://"),
    "PGSERVICE": ("nowhere", "nowhere"),
    "PGSSLMODE": ("perhaps", "perhaps"),
}


@pytest.mark.parametrize("variable", WRONG)
@pytest.mark.parametrize("command", ["apply", "list"])
def test_what_is_wrong_with_the_address_is_one_message(
    variable: str, command: str, postgresql_url: str
) -> None:
    value, says = WRONG[variable]

    assert says in refused(command, environment=surroundings(postgresql_url) | {variable: value})


@pytest.fixture
def locked(private_server: Server) -> dict[str, str]:
    """The variables for a server that has no TLS, on a port, and asks the role rex for a password."""
    run_sql(private_server.url(), "CREATE ROLE rex LOGIN")
    run_sql(private_server.url(), "CREATE DATABASE rex OWNER rex")
    with psycopg.connect(private_server.url(), autocommit=True) as connection:
        connection.execute(sql.SQL("ALTER ROLE rex PASSWORD {}").format(PASSWORD))
    private_server.stop()
    rules = private_server.folder / "data/pg_hba.conf"
    rules.write_text(
        f"local all rex scram-sha-256\nhost all rex 127.0.0.1/32 scram-sha-256\n{rules.read_text()}"
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    private_server.start(listen_addresses="127.0.0.1", port=port)
    return {"PGHOST": "127.0.0.1", "PGPORT": port, "PGUSER": "rex", "PGDATABASE": "rex"}


def test_a_password_comes_from_its_variable_or_its_file_and_is_never_shown(
    locked: dict[str, str], tmp_path: Path
) -> None:
    """Not when it is right, nor when it is wrong, nor with -vv, nor in a URL."""
    file = tmp_path / "passwords"
    file.write_text(f"*:*:*:rex:{PASSWORD}\n")
    file.chmod(0o600)
    by_variable, by_file = {"PGPASSWORD": PASSWORD}, {"PGPASSFILE": str(file)}
    url = f"postgresql+atomic://rex:{PASSWORD.replace(' ', '%20')}@/rex"
    told = [
        yoyo("apply", environment=locked | by_variable),
        yoyo("rollback", "--all", "-vv", environment=locked | by_file),
        yoyo("list", "--database", url, environment=locked),
        yoyo("apply", "--database", url.replace("/rex", "/nowhere"), "-vv", environment=locked),
        yoyo("apply", environment=locked | {"PGPASSWORD": f"{PASSWORD} not"}),
        yoyo("apply", "-vv", environment=locked | {"PGPASSWORD": f"{PASSWORD} not"}),
        yoyo("apply", environment=locked | {"PGPASSFILE": str(tmp_path / "none")}),
    ]

    assert [ran.code for ran in told] == [0, 0, 0, 1, 1, 1, 1]
    assert not any("s3cret" in ran.out + ran.error for ran in told)
    assert "rejected this user" in told[4].error
    assert "correct PGUSER and the password" in told[4].error
    assert "no password supplied" in told[6].error
    assert [told[4].error.count("yoyo: "), "Traceback" in told[4].error] == [1, False]


def test_what_is_demanded_of_tls_reaches_the_server(locked: dict[str, str], tmp_path: Path) -> None:
    """By the variables, and by the URL; this server has none, so what demands it fails, in one message."""
    told = locked | {"PGPASSWORD": PASSWORD}

    assert yoyo("list", environment=told | {"PGSSLMODE": "prefer"}).code == 0
    for mode in ("require", "verify-full"):
        demanded = told | {"PGSSLMODE": mode, "PGSSLROOTCERT": str(tmp_path / "root.crt")}
        if mode == "require":
            del demanded["PGSSLROOTCERT"]
        message = refused("apply", environment=demanded)

        assert "cannot be reached" in message
        assert re.search("SSL was required|root certificate file", message)
    url = "postgresql+atomic://?sslmode=require"
    assert "SSL was required" in refused("apply", "--database", url, environment=told)


def test_citus_comes_after_all_others(postgresql_url: str) -> None:
    """Both folders are read; without Citus, its migration fails with its place; the others are applied."""
    environment = surroundings(postgresql_url)
    listed = yoyo("list", ini="citus", environment=environment)

    assert [line.split()[1] for line in listed.out.splitlines()[2:]] == [*IDS, CITUS.id]

    message = refused("apply", ini="citus", environment=environment)
    line = CITUS.apply_sql[: CITUS.apply_sql.index("SELECT create_distributed")].count("\n") + 1

    assert message.startswith(
        f"yoyo: sql_migrations/citus/{CITUS.id}.sql:{line}: function create_distributed_table("
    )
    assert "does not exist" in message
    assert applied(postgresql_url) == IDS
    assert yoyo("list", environment=environment).out.count("\nA ") == len(IDS)


def test_citus_distributes_every_table_by_player_and_takes_every_table_back(
    migrated_postgresql_url: str,
) -> None:
    with psycopg.connect(migrated_postgresql_url) as connection:
        tables = sorted(describe(connection, "public").tables)
    there, back = (
        " ".join(statement.text for statement in CITUS.statements(direction))
        for direction in ("apply", "rollback")
    )
    rebuilt = re.findall(r"DROP TABLE (\w+)", back)

    assert sorted(re.findall(r"create_distributed_table\('(\w+)', 'user_id'", there)) == tables
    assert sorted(re.findall(r"truncate_local_data_after_distributing_table\('(\w+)'", there)) == tables
    assert sorted([*rebuilt, *re.findall(r"undistribute_table\('(\w+)'", back)]) == tables


def tasks_of(connection: psycopg.Connection, query_sql: str) -> list[int]:
    """Return how many shards each step of a query asks, where Citus runs it."""
    connection.execute(f"PREPARE asked AS {query_sql.replace('?', '$')}".encode())
    ((types,),) = connection.execute(
        "SELECT parameter_types::TEXT[] FROM pg_prepared_statements WHERE name = 'asked'"
    )
    values = ", ".join("now()" if kind.startswith("timestamp") else "'1'" for kind in types)
    plan = connection.execute(f"EXPLAIN EXECUTE asked({values})".encode()).fetchall()
    connection.execute("DEALLOCATE asked")
    return [int(count) for count in re.findall(r"Task Count: (\d+)", "\n".join(line for (line,) in plan))]


def test_every_query_can_be_explained_as_citus_will_be_asked(migrated_postgresql_url: str) -> None:
    """So that the test below fails for what Citus does, and not for how it asks."""
    with psycopg.connect(migrated_postgresql_url, autocommit=True) as connection:
        assert [tasks_of(connection, text) for text in QUERIES.values()] == [[]] * len(QUERIES)


@pytest.fixture
def coordinator(report: Callable[[str], None]) -> Iterator[str]:
    """The URL of a schema of the test's own on a Citus coordinator."""
    if COORDINATOR not in os.environ:
        report(
            f"Citus: NOT TESTED. Name a database on a coordinator in {COORDINATOR} to do so, "
            "such as postgresql://postgres@localhost/citus"
        )
        pytest.skip(f"{COORDINATOR} names no coordinator of Citus")
    url = os.environ[COORDINATOR]
    schema = f"poker_therapist_test_{os.getpid()}"
    run_sql(url, f"CREATE SCHEMA {schema}")
    yield f"{url}{'&' if '?' in url else '?'}schema={schema}"
    run_sql(url, f"DROP SCHEMA {schema} CASCADE")


def test_citus_runs_the_migrations_and_answers_every_query_from_one_shard(
    coordinator: str, report: Callable[[str], None]
) -> None:
    """Rows that were there are distributed; the storage works; everything comes back."""
    schema = coordinator.rpartition("schema=")[2]
    options = ["--database", coordinator.replace("postgresql:", "postgresql+atomic:", 1)]
    plain = f"{coordinator.rpartition('schema=')[0]}options=-c%20search_path%3D{schema}"
    assert migrate(["apply"], coordinator).code == 0
    run_sql(plain, ROWS)
    before = everything(plain, schema)
    ran = yoyo("apply", *options, ini="citus", environment={})

    assert ran.code == 0, ran.error
    with get_pattern_storage(coordinator) as storage:
        storage.save_pattern(7, "tilt", "after_bad_beat", {"a": 1})
        storage.save_context(7, "topic", "river", session_id="monday", expires_minutes=-1)
        storage.save_insight(7, "leak", ["calls", "too much"])
        assert storage.get_pattern(7, "tilt", "after_bad_beat") == {"a": 1}
        storage.save_patterns(7, "tilt", {"after_bad_beat": {"a": 2}, "after_a_win": 1})
        first, second = storage.save_contexts(7, [{"key": "topic", "value": value} for value in (1, 2)])
        assert storage.get_context_items(7, before=second)[0]["id"] == first
        assert storage.set_confidence(7, "tilt", "after_a_win", 0.5)
        assert storage.delete_context(7, first)
        assert 7 in storage.list_users()
        assert storage.recall(7)
        assert storage.export_user(7)
        assert storage.purge_expired() >= 1
        assert storage.forget_user(7)
    with psycopg.connect(plain, autocommit=True) as connection:
        # Many rows of one player are read from no table; the coordinator sends them to one shard.
        tasks = {
            name: tasks_of(connection, text)
            for name, text in QUERIES.items()
            if not re.match("next_player_with_expired|users_of_.*|.*_many$", name)
        }
    assert {name: set(counts) for name, counts in tasks.items() if set(counts) != {1}} == {}
    ran = yoyo("rollback", "--revision", CITUS.id, *options, ini="citus", environment={})

    assert ran.code == 0, ran.error
    assert everything(plain, schema)[:2] == before[:2]
    report("Citus: apply, storage, queries on one shard each, rollback")


def test_what_a_message_tells_to_run_is_about_the_server(postgresql_url: str) -> None:
    """Without the option, yoyo would take the SQLite file that yoyo.ini names."""
    assert yoyo("apply", environment=surroundings(postgresql_url)).code == 0
    with psycopg.connect(postgresql_url) as connection:
        connection.execute("UPDATE _migration_text SET checksum = 'x' WHERE migration_id = %s", (IDS[-1],))
    edited = refused("apply", environment=surroundings(postgresql_url))
    with psycopg.connect(postgresql_url) as connection:
        connection.execute("UPDATE _migration_text SET apply_sql = 'SELECT 1;'")  # whatever its header says
        for table in ("_yoyo_migration", "_migration_text"):
            rename = f"UPDATE {table} SET migration_id = '999_new' WHERE migration_id = %s"
            connection.execute(rename, (IDS[-1],))
    with pytest.raises(SchemaTooNew) as newer:
        get_pattern_storage(postgresql_url)

    assert f"`yoyo unmark -m '^{IDS[-1]}$' -c {ROOT}/yoyo.postgresql.ini`" in edited
    assert "`poker-therapist rollback --to 999_new --database 'postgresql:" in str(newer.value)
