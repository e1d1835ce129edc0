-- What a dump of the database is made of.

-- name: schema_in_use()
SELECT current_schema();

-- name: relations(names)
-- The given tables, views and sequences, as far as they are there, those first on which no other rests.
SELECT
    relation.relname,
    CASE relation.relkind
        WHEN 'v' THEN 'VIEW'
        WHEN 'm' THEN 'MATERIALIZED VIEW'
        WHEN 'S' THEN 'SEQUENCE'
        ELSE 'TABLE'
    END AS kind
FROM pg_class AS relation
INNER JOIN pg_namespace AS namespace ON relation.relnamespace = namespace.oid
WHERE
    namespace.nspname = current_schema()
    AND relation.relkind IN ('r', 'p', 'v', 'm', 'S')
    AND relation.relname = any(:names)
ORDER BY position(relation.relkind IN 'vmrpS'), relation.relname;
