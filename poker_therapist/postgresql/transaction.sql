-- What a transaction asks, beside the storage's own queries.
-- sqlfluff:dialect:postgres

-- name: lock_player(key)
-- Held by the session, not by a transaction, so that it can be taken before the transaction has a snapshot.
SELECT pg_advisory_lock(:key);
