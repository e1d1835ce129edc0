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
