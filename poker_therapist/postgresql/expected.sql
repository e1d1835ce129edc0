-- What building a database again asks of the live one.

-- A column of a server's catalog has that one's letters.
-- noqa: disable=RF02

-- name: left_behind(prefix)
-- A scratch database has the number of the session in its name that has made it.
SELECT database.datname FROM pg_database AS database
WHERE
    starts_with(database.datname, :prefix)
    AND NOT EXISTS (
        SELECT FROM pg_stat_activity AS maker
        WHERE CAST(maker.pid AS TEXT) = split_part(substr(database.datname, 25), '_', 1)
    );

-- name: create_database(name)
SELECT
    format(
        'CREATE DATABASE %I TEMPLATE template0 ENCODING %L LC_COLLATE %L LC_CTYPE %L TABLESPACE %I',
        CAST(:name AS TEXT), pg_encoding_to_char(encoding), datcollate, datctype, spcname
    ) || CASE datlocprovider
        -- The column has another name since PostgreSQL 17.
        WHEN 'i'
            THEN
                format(
                    ' LOCALE_PROVIDER icu ICU_LOCALE %L',
                    coalesce(to_jsonb(here) ->> 'datlocale', to_jsonb(here) ->> 'daticulocale')
                ) || coalesce(' ICU_RULES ' || quote_literal(to_jsonb(here) ->> 'daticurules'), '')
        WHEN 'b' THEN format(' LOCALE_PROVIDER builtin BUILTIN_LOCALE %L', to_jsonb(here) ->> 'datlocale')
        ELSE ' LOCALE_PROVIDER libc'
    END AS statement
FROM pg_database AS here INNER JOIN pg_tablespace ON here.dattablespace = pg_tablespace.oid
WHERE datname = current_database();

-- name: settings(database)
-- For everybody and for this role.
SELECT
    split_part(setting, '=', 1) AS name,
    substr(setting, strpos(setting, '=') + 1) AS value
FROM pg_db_role_setting
INNER JOIN pg_database ON setdatabase = pg_database.oid
CROSS JOIN LATERAL unnest(setconfig) AS setting
WHERE
    datname = :database
    AND setrole IN (0, (
        SELECT oid FROM pg_roles
        WHERE rolname = session_user
    ))
ORDER BY setrole;

-- name: has_schema(schema)
SELECT count(*) > 0 AS is_there FROM pg_namespace
WHERE nspname = :schema;

-- name: extensions()
SELECT
    extname,
    nspname,
    extversion
FROM pg_extension INNER JOIN pg_namespace ON extnamespace = pg_namespace.oid
WHERE extname <> 'plpgsql'
ORDER BY pg_extension.oid;
