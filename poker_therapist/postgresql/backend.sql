-- What the PostgreSQL backend asks.

-- name: all_tables(schema)
SELECT CAST(relation.relname AS TEXT) FROM pg_class AS relation
INNER JOIN pg_namespace AS namespace ON relation.relnamespace = namespace.oid
WHERE relation.relkind IN ('r', 'p') AND namespace.nspname = :schema;

-- name: lock_key_of(schema, migration_table)
-- Of this table in this schema; PostgreSQL itself keeps the locks of databases apart.
SELECT hashtextextended(
    'migrations of ' || CAST(:schema AS TEXT) || '.' || CAST(:migration_table AS TEXT), 0
);

-- name: try_lock(key)
SELECT pg_try_advisory_lock(:key);

-- name: is_locked(key)
-- Of a key of 64 bits, pg_locks shows each half by itself.
SELECT count(*) > 0 AS is_locked
FROM pg_locks AS held
INNER JOIN pg_database AS here ON held.database = here.oid
WHERE
    here.datname = current_database()
    AND held.locktype = 'advisory'
    AND (CAST(held.classid AS BIGINT) << 32) | CAST(held.objid AS BIGINT) = :key
    AND held.objsubid = 1
    AND held.granted;

-- name: set_lock_timeout(duration)
-- How long a migration may wait for a table, and so keep others waiting behind it.
SELECT set_config('lock_timeout', :duration, FALSE);

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
    lower('column ' || relation.relname || '.' || pg_attribute.attname) AS name,
    format('ALTER TABLE %s DROP COLUMN %I;', relation.found_as, pg_attribute.attname) AS dropping
FROM relation INNER JOIN pg_attribute ON relation.oid = pg_attribute.attrelid
WHERE relation.relkind IN ('r', 'p') AND pg_attribute.attnum > 0 AND NOT pg_attribute.attisdropped
UNION ALL
SELECT
    lower('trigger ' || relation.relname || '.' || pg_trigger.tgname) AS name,
    format('DROP TRIGGER %I ON %s;', pg_trigger.tgname, relation.found_as) AS dropping
FROM relation INNER JOIN pg_trigger ON relation.oid = pg_trigger.tgrelid
WHERE NOT pg_trigger.tgisinternal;
