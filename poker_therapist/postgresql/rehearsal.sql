-- What a rehearsal asks.

-- name: databases_named(prefix)
SELECT datname FROM pg_database
WHERE starts_with(datname, :prefix);

-- name: schemas_named(prefix)
SELECT nspname FROM pg_namespace
WHERE starts_with(nspname, :prefix);

-- name: claim(name)
-- Held as long as its session lives: what nobody claims, a killed rehearsal has left behind.
SELECT pg_try_advisory_lock(hashtextextended(:name, 0));

-- name: others(database)
-- What has no user is the server's own, and makes way.
SELECT count(*) FROM pg_stat_activity
WHERE datname = :database AND pid <> pg_backend_pid() AND usesysid IS NOT NULL;

-- name: database_and_schema()
SELECT
    current_database() AS database_name,
    current_schema() AS schema_name;

-- name: size_of_database(name)
SELECT pg_database_size(CAST(:name AS NAME)) AS bytes;

-- name: counters(schemas)
-- Where the ids of each table go on.
SELECT
    schemaname,
    sequencename,
    last_value
FROM pg_sequences
WHERE schemaname = any(:schemas);

-- name: set_counter(schema, sequence, last_value)
-- A sequence of a table that is not ours has no twin, and NULL does nothing.
SELECT setval(to_regclass(format('%I.%I', CAST(:schema AS TEXT), CAST(:sequence AS TEXT))), :last_value);

-- name: written_columns(schema, table)
-- All but those that the server computes.
SELECT attribute.attname FROM pg_attribute AS attribute
INNER JOIN pg_class AS relation ON attribute.attrelid = relation.oid
INNER JOIN pg_namespace AS namespace ON relation.relnamespace = namespace.oid
WHERE
    namespace.nspname = :schema
    AND relation.relname = :table
    AND attribute.attnum > 0
    AND NOT attribute.attisdropped
    AND attribute.attgenerated = ''
ORDER BY attribute.attnum;

-- name: invalid_indexes(schemas)
SELECT entry.relname FROM pg_index AS made
INNER JOIN pg_class AS entry ON made.indexrelid = entry.oid
INNER JOIN pg_namespace AS namespace ON entry.relnamespace = namespace.oid
WHERE namespace.nspname = any(:schemas) AND NOT made.indisvalid;

-- name: size(schemas)
SELECT coalesce(sum(pg_total_relation_size(relation.oid)), 0) AS bytes
FROM pg_class AS relation
INNER JOIN pg_namespace AS namespace ON relation.relnamespace = namespace.oid
WHERE namespace.nspname = any(:schemas) AND relation.relkind IN ('r', 'm');

-- name: triggers(schema)
-- Those that fire.
SELECT
    relation.relname,
    made.tgname,
    CASE made.tgenabled WHEN 'R' THEN 'REPLICA' WHEN 'A' THEN 'ALWAYS' ELSE '' END AS how
FROM pg_trigger AS made
INNER JOIN pg_class AS relation ON made.tgrelid = relation.oid
INNER JOIN pg_namespace AS namespace ON relation.relnamespace = namespace.oid
WHERE
    namespace.nspname = :schema
    AND NOT made.tgisinternal
    AND made.tgparentid = 0
    AND made.tgenabled <> 'D'
ORDER BY relation.relname, made.tgname;
