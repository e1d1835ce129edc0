-- What the freeing of deleted rows' room asks.

-- name: vacuumed(table_name)
-- How often a table has been vacuumed, by whomever.
SELECT pg_stat_get_vacuum_count(relation.oid) + pg_stat_get_autovacuum_count(relation.oid) AS times
FROM pg_class AS relation
WHERE relation.oid = to_regclass(CAST(:table_name AS TEXT));
