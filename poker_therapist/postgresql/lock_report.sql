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

-- name: counters(tables)
-- Of this transaction: for each table its scans, rows inserted, updated and deleted, its file, and rows read.
SELECT
    oid,
    pg_stat_get_xact_numscans(oid) AS seq_scan,
    pg_stat_get_xact_tuples_inserted(oid) AS n_tup_ins,
    pg_stat_get_xact_tuples_updated(oid) AS n_tup_upd,
    pg_stat_get_xact_tuples_deleted(oid) AS n_tup_del,
    coalesce(pg_relation_filenode(oid), 0) AS file,
    pg_stat_get_xact_tuples_returned(oid) AS seq_tup_read
FROM pg_class
WHERE oid = any(CAST(:tables AS OID[])) AND relkind IN ('r', 'm', 'p');
