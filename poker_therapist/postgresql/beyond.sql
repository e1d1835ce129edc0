-- What a migration may have changed beyond its database.

-- A column of a server's catalog has that one's letters.
-- noqa: disable=RF02

-- name: shared()
-- Each version of each row that all databases of the server share; passwords are not for everybody.
SELECT
    'roles' AS what,
    md5(CAST(pg_roles AS TEXT)) AS version
FROM pg_catalog.pg_roles
UNION ALL
SELECT
    'role memberships' AS what,
    CAST(ctid AS TEXT) || CAST(xmin AS TEXT) AS version
FROM pg_catalog.pg_auth_members
UNION ALL
SELECT
    'databases' AS what,
    CAST(ctid AS TEXT) || CAST(xmin AS TEXT) AS version
FROM pg_catalog.pg_database
UNION ALL
SELECT
    'tablespaces' AS what,
    CAST(ctid AS TEXT) || CAST(xmin AS TEXT) AS version
FROM pg_catalog.pg_tablespace
UNION ALL
SELECT
    'settings of roles and databases' AS what,
    CAST(ctid AS TEXT) || CAST(xmin AS TEXT) AS version
FROM pg_catalog.pg_db_role_setting
UNION ALL
SELECT
    'comments on shared objects' AS what,
    CAST(ctid AS TEXT) || CAST(xmin AS TEXT) AS version
FROM pg_catalog.pg_shdescription
UNION ALL
SELECT
    'security labels of shared objects' AS what,
    CAST(ctid AS TEXT) || CAST(xmin AS TEXT) AS version
FROM pg_catalog.pg_shseclabel
UNION ALL
SELECT
    'grants on parameters' AS what,
    CAST(ctid AS TEXT) || CAST(xmin AS TEXT) AS version
FROM pg_catalog.pg_parameter_acl;

-- name: reached(schema)
-- A lock of a table is held until the transaction ends.
SELECT namespace.nspname || '.' || relation.relname
FROM pg_catalog.pg_locks AS held
INNER JOIN pg_catalog.pg_class AS relation ON held.relation = relation.oid
INNER JOIN pg_catalog.pg_namespace AS namespace ON relation.relnamespace = namespace.oid
WHERE
    held.pid = pg_backend_pid()
    AND held.mode <> 'AccessShareLock'
    AND held.database = (
        SELECT oid FROM pg_catalog.pg_database
        WHERE datname = current_database()
    )
    AND relation.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
    AND namespace.nspname <> :schema
    AND namespace.nspname !~ '^(pg_|information_schema$)'
LIMIT 1;
