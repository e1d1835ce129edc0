-- What a dump of the database is made of.

-- name: relations(schema, names)
-- The given tables, views and sequences, as far as they exist, in the order in which they can be dropped.
SELECT
    CASE relation.relkind WHEN 'v' THEN 'VIEW' WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END AS kind,
    format('%I.%I', namespace.nspname, relation.relname) AS name
FROM pg_class AS relation
INNER JOIN pg_namespace AS namespace ON relation.relnamespace = namespace.oid
WHERE
    namespace.nspname = CAST(:schema AS TEXT)
    AND relation.relkind IN ('r', 'p', 'v', 'S')
    AND relation.relname = any(CAST(:names AS TEXT[]))
ORDER BY kind DESC, relation.relname ASC;

-- name: dumped(names)
-- How many rows each of the given tables has about, and how many of them a COPY that runs has read.
SELECT
    relation.oid,
    greatest(relation.reltuples, 0) AS estimate,
    coalesce(copying.tuples_processed, 0) AS read
FROM pg_class AS relation
LEFT JOIN pg_stat_progress_copy AS copying ON relation.oid = copying.relid AND copying.command = 'COPY TO'
WHERE relation.oid = any(CAST(CAST(:names AS TEXT[]) AS REGCLASS[]));
