-- name: tables()
-- What others see, and call by these names.
SELECT
    CAST(relation.oid AS BIGINT) AS oid,
    CASE
        WHEN namespace.nspname = current_schema() THEN CAST(relation.relname AS TEXT)
        ELSE namespace.nspname || '.' || relation.relname
    END AS name
FROM pg_class AS relation
INNER JOIN pg_namespace AS namespace ON relation.relnamespace = namespace.oid
WHERE
    relation.relkind IN ('r', 'p', 'm', 'v', 'f')
    AND namespace.nspname <> 'information_schema'
    AND namespace.nspname !~ '^pg_'
ORDER BY name;

-- name: held(pid)
-- Who reads a table asks for all of its indexes, so a lock on one of them is one on the table.
SELECT DISTINCT
    CAST(coalesce(of_table.indrelid, held.relation) AS BIGINT) AS oid,
    held.mode
FROM pg_locks AS held
INNER JOIN pg_database AS here ON held.database = here.oid
LEFT JOIN pg_index AS of_table ON held.relation = of_table.indexrelid
WHERE
    here.datname = current_database()
    AND held.locktype = 'relation'
    AND held.granted
    AND CAST(held.relation AS BIGINT) >= 16384 -- none of the catalogs
    AND (of_table.indrelid IS NULL OR held.mode = 'AccessExclusiveLock')
    AND held.pid = CAST(:pid AS INTEGER);

-- name: counters()
-- Of this transaction: for each table its scans, rows inserted, updated and deleted, its file, and rows read.
SELECT
    relid,
    seq_scan,
    n_tup_ins,
    n_tup_upd,
    n_tup_del,
    CAST(coalesce(pg_relation_filenode(relid), 0) AS BIGINT) AS file,
    coalesce(seq_tup_read, 0) AS seq_tup_read
FROM pg_stat_xact_user_tables;
