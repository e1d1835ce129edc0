"""PostgreSQL: the schema in which the tables are, and a second one that could be taken for it."""

import re
from pathlib import Path

import pytest

from poker_therapist import StorageError, get_pattern_storage
from poker_therapist.location import locate, yoyo_url
from tests.helpers.cli import command
from tests.helpers.engines import query, run_sql, with_options
from tests.helpers.project import ServerProject

USER = 7


@pytest.fixture(scope="session")
def engine() -> str:
    """This one alone."""
    return "postgresql"


def save(url: str) -> None:
    with get_pattern_storage(url) as storage:
        storage.save_pattern(USER, "tilt", "bad_beat", 1)


def test_a_schema_that_appears_before_the_memory_on_the_path_stays_empty(
    migrated: str, tmp_path: Path
) -> None:
    """`"$user"` is first on the path, and has no schema until somebody creates one of the role's name."""
    save(migrated)
    run_sql(migrated, "CREATE SCHEMA postgres")
    ran = command("apply", "--database", migrated, folder=tmp_path)

    assert (ran.code, ran.lines) == (0, ["nothing to apply: the database is up to date"])
    with get_pattern_storage(migrated) as storage:
        assert storage.get_pattern(USER, "tilt", "bad_beat") == 1
    assert command("status", "--database", migrated, folder=tmp_path).code == 0
    assert query(migrated, "SELECT count(*) FROM pg_tables WHERE schemaname = 'postgres'") == [(0,)]


def test_two_memories_are_refused_with_the_names_of_both(migrated: str, tmp_path: Path) -> None:
    run_sql(migrated, "CREATE SCHEMA postgres")
    save(with_options(migrated, "schema=postgres"))
    says = "has Poker Therapist's tables in the schemas postgres and public: add ?schema=postgres or ?sc"
    with pytest.raises(StorageError, match=re.escape(says)):
        get_pattern_storage(migrated)
    for deed in ("apply", "status", "backup"):
        ran = command(deed, "--database", migrated, folder=tmp_path)
        assert ran.code == 1
        assert says in ran.error
    for schema in ("postgres", "public"):
        assert (
            command("status", "--database", with_options(migrated, f"schema={schema}"), folder=tmp_path).code
            == 0
        )


def test_an_apps_own_history_of_yoyo_s_is_no_second_memory(migrated: str) -> None:
    save(migrated)
    run_sql(migrated, "CREATE SCHEMA postgres CREATE TABLE _yoyo_migration (migration_id VARCHAR(255))")
    with get_pattern_storage(migrated) as storage:
        assert storage.get_pattern(USER, "tilt", "bad_beat") == 1


@pytest.mark.slow
@pytest.mark.usefixtures("programs")
@pytest.mark.parametrize("schema", ["Select"])
def test_a_schema_whose_name_has_to_be_quoted_is_found_by_every_command(
    schema: str, postgresql_url: str, tmp_path: Path
) -> None:
    run_sql(postgresql_url, f'CREATE SCHEMA "{schema}"')
    url = with_options(postgresql_url, f"schema={schema}")
    save(url)
    assert query(postgresql_url, f'SELECT count(*) FROM "{schema}".user_patterns') == [(1,)]
    backup = "backup --output one.backup", "restore one.backup", "export 7"
    for deed in ("status", "apply", "rollback --to 005_order_by_id --yes", "rehearse", "apply", *backup):
        ran = command(*deed.split(), "--database", url, folder=tmp_path)
        assert ran.code == 0, ran.error
    assert command("copy", url, "copy.db", folder=tmp_path).code == 0
    with get_pattern_storage(url) as storage:
        assert storage.forget_user(USER)["user_patterns"] == 1


def test_a_schema_that_is_written_otherwise_than_its_name_is_found(postgresql_url: str) -> None:
    """As earlier versions did, which had its name in lower case."""
    run_sql(postgresql_url, "CREATE SCHEMA rex")
    save(with_options(postgresql_url, "schema=REX"))

    assert query(postgresql_url, "SELECT count(*) FROM rex.user_patterns") == [(1,)]


def test_what_is_advised_to_be_dropped_is_named_with_its_schema(two_migrations: ServerProject) -> None:
    two_migrations.run_sql('CREATE SCHEMA "Rex"')
    assert two_migrations.yoyo("apply", options="&schema=Rex").returncode == 0
    two_migrations.run_sql('CREATE INDEX mine ON "Rex".hands (id)')
    two_migrations.write("003_drop", "-- depends: 002_add_bets\nDROP INDEX mine;", "SELECT 1;")

    assert '(DROP INDEX "Rex".mine;)' in two_migrations.refuses("apply", options="&schema=Rex")


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://rex@h1:5432,h2:5433/db",
        "postgresql://h1:5432,h2/db?target_session_attrs=read-write",
        "postgresql://rex@[::1]:5432,[::2]:5433/db",
        "postgresql://%2Frun%2Fa:5432,%2Frun%2Fb:5433/db",
        "postgresql://h1,h2/db",
    ],
)
def test_yoyo_is_given_several_servers_as_it_can_read_them(url: str) -> None:
    """Its URLs have one port; libpq's have one for each server, and both take them behind the `?`."""
    from yoyo.connections import parse_uri

    from poker_therapist.postgresql.backend import url_of

    read = locate(url_of(parse_uri(yoyo_url(locate(url)))))
    assert getattr(read, "conninfo", None) == getattr(locate(url), "conninfo", "")


def test_migrations_are_applied_to_the_one_of_several_servers_that_is_there(
    postgresql_url: str, tmp_path: Path
) -> None:
    path, _, query_part = postgresql_url.removeprefix("postgresql://postgres@").partition("?host=")
    folder, _, port = query_part.partition("&port=")
    url = f"postgresql://postgres@%2Fnot%2Fthere:5432,{folder}:{port}{path}".replace("/dev", "%2Fdev")
    ran = command(
        "apply", "--database", url.replace("shm/", "shm%2F").replace("dev/", "dev%2F"), folder=tmp_path
    )

    assert (ran.code, ran.error) == (0, "")
    save(postgresql_url)
