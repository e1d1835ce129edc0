-- What a transaction asks, beside the storage's own queries.
-- sqlfluff:dialect:postgres

-- name: lock_player(key)
-- Held by the session, not by a transaction, so that it can be taken before the transaction has a snapshot.
SELECT pg_advisory_lock(:key);

-- name: try_player(key)
-- Where another session may serve the next transaction.
SELECT
    pg_try_advisory_xact_lock(:key) AS is_locked,
    pg_backend_pid() AS pid;

-- name: wait_for_player(key)
SELECT pg_advisory_xact_lock(:key);

-- name: lock_players(keys)
-- In the order of the keys, until the transaction ends.
SELECT pg_advisory_xact_lock(wanted.key) FROM unnest(cast(:keys AS BIGINT[])) AS wanted (key);
