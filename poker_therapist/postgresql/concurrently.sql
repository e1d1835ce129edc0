-- name: invalid_indexes(kind, scope)
-- Of a table, of the table of an index, of a schema, or of the whole database. Not those of partitioned
-- tables: such an index is not valid until each partition has its part of it. The names of what REINDEX
-- CONCURRENTLY has left are PostgreSQL's own.
WITH wanted AS (
    SELECT
        CAST(:kind AS TEXT) AS kind,
        CAST(:scope AS TEXT) AS scope
)

SELECT
    CAST(relation.oid AS BIGINT) AS oid,
    CAST(namespace.nspname AS TEXT) AS schema_name,
    CAST(relation.relname AS TEXT) AS name,
    relation.relname ~ '_cc(new|old)[0-9]*$' AS is_transient
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
