-- What the PostgreSQL backend asks.

-- name: all_tables(schema)
SELECT CAST(relname AS TEXT) FROM pg_class
WHERE relkind IN ('r', 'p') AND relnamespace = to_regnamespace(quote_ident(:schema));

-- name: is_table(written)
SELECT (pg_identify_object(CAST('pg_class' AS REGCLASS), to_regclass(:written), 0)).type = 'table' AS found;

-- name: tables_of_schema(schema_name)
SELECT CAST(relation.relname AS TEXT) FROM pg_class AS relation
INNER JOIN pg_namespace AS namespace ON relation.relnamespace = namespace.oid
WHERE relation.relkind IN ('r', 'p') AND NOT relation.relispartition AND namespace.nspname = :schema_name
ORDER BY relation.relname;

-- name: lock_key_of(schema, migration_table)
-- Of this table in this schema; PostgreSQL itself keeps the locks of databases apart.
SELECT hashtextextended(
    'migrations of ' || CAST(:schema AS TEXT) || '.' || CAST(:migration_table AS TEXT), 0
);

-- name: try_lock(key)
SELECT pg_try_advisory_lock(:key);

-- name: holders(key)
-- Who has the lock. Of a key of 64 bits, pg_locks shows each half by itself.
SELECT
    concat(
        'process ',
        held.pid,
        ' of the server',
        ', from ' || host(activity.client_addr),
        ', ' || nullif(activity.application_name, '')
    ) AS holder
FROM pg_locks AS held
INNER JOIN pg_database AS here ON held.database = here.oid
LEFT JOIN pg_stat_activity AS activity ON held.pid = activity.pid
WHERE
    here.datname = current_database()
    AND held.locktype = 'advisory'
    AND (CAST(held.classid AS BIGINT) << 32) | CAST(held.objid AS BIGINT) = :key
    AND held.objsubid = 1
    AND held.granted;

-- name: set_lock_timeout(duration)
-- How long a migration may wait for a table, and so keep others waiting behind it.
SELECT set_config('lock_timeout', :duration, FALSE);

-- name: role_of()
SELECT current_setting('role');

-- name: set_role(role_name)
SELECT set_config('role', :role_name, FALSE);

-- name: present(schema_name)
-- The index of a constraint goes with that, and has its name.
WITH relation AS (
    SELECT
        pg_class.oid,
        pg_class.relname,
        pg_class.relkind,
        CASE WHEN pg_namespace.nspname = 'public' THEN '' ELSE quote_ident(pg_namespace.nspname) || '.' END
        || quote_ident(pg_class.relname) AS found_as
    FROM pg_class
    INNER JOIN pg_namespace ON pg_class.relnamespace = pg_namespace.oid
    WHERE pg_namespace.nspname = :schema_name
)

SELECT
    lower(
        CASE
            WHEN relkind IN ('r', 'p') THEN 'table '
            WHEN relkind IN ('v', 'm') THEN 'view '
            ELSE 'index '
        END || relname
    ) AS name,
    format(
        CASE
            WHEN relkind IN ('r', 'p') THEN 'DROP TABLE %s;'
            WHEN relkind = 'v' THEN 'DROP VIEW %s;'
            WHEN relkind = 'm' THEN 'DROP MATERIALIZED VIEW %s;'
            ELSE 'DROP INDEX %s;'
        END,
        found_as
    ) AS dropping
FROM relation
WHERE
    relkind IN ('r', 'p', 'v', 'm')
    OR (relkind IN ('i', 'I') AND oid NOT IN (SELECT pg_constraint.conindid FROM pg_constraint))
UNION ALL
SELECT
    lower('column ' || relation.relname || '.' || part.attname) AS name,
    format('ALTER TABLE %s DROP COLUMN %I;', relation.found_as, part.attname) AS dropping
FROM relation
CROSS JOIN
    LATERAL (
        SELECT one.attname FROM pg_attribute AS one
        WHERE one.attrelid = relation.oid AND one.attnum > 0 AND NOT one.attisdropped
        OFFSET 0 -- by the index, and not all columns of the server's own tables
    ) AS part
WHERE relation.relkind IN ('r', 'p')
UNION ALL
SELECT
    lower('trigger ' || relation.relname || '.' || pg_trigger.tgname) AS name,
    format('DROP TRIGGER %I ON %s;', pg_trigger.tgname, relation.found_as) AS dropping
FROM relation INNER JOIN pg_trigger ON relation.oid = pg_trigger.tgrelid
WHERE NOT pg_trigger.tgisinternal;

-- name: countable()
-- The columns of the tables that hold somebody's data; of one with children, its own rows.
SELECT
    CAST(namespace.nspname AS TEXT) AS schema_name,
    CAST(relation.relname AS TEXT) AS table_name,
    CAST(attribute.attname AS TEXT) AS column_name,
    CASE WHEN relation.relkind = 'r' AND relation.relhassubclass THEN 'ONLY ' ELSE '' END
    || format('%I.%I', namespace.nspname, relation.relname) AS written,
    quote_ident(attribute.attname) AS column_written
FROM pg_class AS relation
INNER JOIN pg_namespace AS namespace ON relation.relnamespace = namespace.oid
LEFT JOIN pg_attribute AS attribute
    ON
        relation.oid = attribute.attrelid
        AND attribute.attnum > 0
        AND NOT attribute.attisdropped
        AND attribute.attgenerated <> 'v'
WHERE
    relation.relkind IN ('r', 'p')
    AND NOT relation.relispartition
    AND relation.relpersistence <> 't'
    AND namespace.nspname <> 'information_schema'
    AND namespace.nspname !~ '^pg_'
    AND relation.relname !~ '^(_yoyo_|_migration_|yoyo_lock$)'
    AND has_schema_privilege(namespace.oid, 'USAGE')
    AND has_table_privilege(relation.oid, 'SELECT')
    -- A policy may call functions of others.
    AND NOT row_security_active(relation.oid)
ORDER BY relation.oid, attribute.attnum;

-- name: may_write(written)
SELECT has_table_privilege(CAST(:written AS TEXT), 'UPDATE, DELETE, TRUNCATE');

-- name: has_invalid_index()
SELECT 1 FROM pg_index
WHERE NOT (indisvalid AND indisready)
LIMIT 1;

-- name: invalid_indexes(kind, scope)
-- Of a table, of the table of an index, of a schema, or of the whole database. Not those of partitioned
-- tables: such an index is not valid until each partition has its part of it. The names of what REINDEX
-- CONCURRENTLY has left are PostgreSQL's own; a twin is valid, and differs in its name alone.
WITH wanted AS (
    SELECT
        CAST(:kind AS TEXT) AS kind,
        CAST(:scope AS TEXT) AS scope
)

SELECT
    CAST(relation.oid AS BIGINT) AS oid,
    CAST(namespace.nspname AS TEXT) AS schema_name,
    CAST(relation.relname AS TEXT) AS name,
    relation.relname ~ '_cc(new|old)[0-9]*$' AS is_transient,
    (
        SELECT count(*) > 0
        FROM pg_index AS twin
        INNER JOIN pg_class AS named_otherwise ON twin.indexrelid = named_otherwise.oid
        WHERE
            twin.indrelid = this.indrelid
            AND twin.indisvalid
            AND replace(pg_get_indexdef(twin.indexrelid), quote_ident(named_otherwise.relname) || ' ON ', '')
            = replace(pg_get_indexdef(this.indexrelid), quote_ident(relation.relname) || ' ON ', '')
    ) AS has_twin
FROM wanted
CROSS JOIN pg_index AS this
INNER JOIN pg_class AS relation ON this.indexrelid = relation.oid
INNER JOIN pg_namespace AS namespace ON relation.relnamespace = namespace.oid
LEFT JOIN pg_index AS named ON wanted.kind = 'INDEX' AND named.indexrelid = to_regclass(wanted.scope)
WHERE
    NOT (this.indisvalid AND this.indisready)
    AND relation.relkind = 'i'
    AND (
        wanted.kind = 'DATABASE'
        OR (wanted.kind = 'SCHEMA' AND namespace.nspname = (parse_ident(wanted.scope))[1])
        OR (wanted.kind = 'TABLE' AND this.indrelid = to_regclass(wanted.scope))
        OR this.indrelid = named.indrelid
    )
ORDER BY relation.oid;

-- name: is_named(written, name)
-- A name as a statement writes it, folded and cut off as PostgreSQL does.
SELECT 1
WHERE CAST((parse_ident(:written))[1] AS NAME) = :name;

-- name: is_detaching(partition)
SELECT 1 FROM pg_inherits
WHERE inhrelid = to_regclass(CAST(:partition AS TEXT)) AND inhdetachpending;
