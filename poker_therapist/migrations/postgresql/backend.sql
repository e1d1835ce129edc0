-- What the PostgreSQL backend asks.

-- name: all_tables()
SELECT CAST(relation.relname AS TEXT) FROM pg_class AS relation
INNER JOIN pg_namespace AS namespace ON relation.relnamespace = namespace.oid
WHERE relation.relkind IN ('r', 'p') AND namespace.nspname = current_schema();

-- name: lock_key_of(migration_table)^
-- Of this table in this schema; PostgreSQL itself keeps the locks of databases apart.
SELECT hashtextextended('migrations of ' || coalesce(current_schema(), '') || '.' || :migration_table, 0);

-- name: try_lock(key)^
SELECT pg_try_advisory_lock(:key);

-- name: unlock(key)^
SELECT pg_advisory_unlock(:key);

-- name: set_lock_timeout(duration)^
-- How long a migration may wait for a table, and so keep others waiting behind it.
SELECT set_config('lock_timeout', :duration, FALSE);

-- name: reset_timeouts(lock_timeout)^
-- A migration may have set both.
SELECT
    set_config('lock_timeout', :lock_timeout, FALSE) AS lock_timeout,
    set_config('statement_timeout', reset_val, FALSE) AS statement_timeout
FROM pg_settings
WHERE name = 'statement_timeout';

-- name: current_schema()^
SELECT current_schema();

-- name: make_scratch_schema()!
CREATE SCHEMA poker_therapist_scratch;

-- name: set_search_path(search_path)^
-- For this transaction alone.
SELECT set_config('search_path', :search_path, TRUE);
