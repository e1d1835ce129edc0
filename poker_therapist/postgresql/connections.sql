-- What the connections to a PostgreSQL database ask, beside the storage's own queries.
-- sqlfluff:dialect:postgres

-- name: lock_player(key)
-- Held by the session, not by a transaction, so that it can be taken before the transaction sees anything.
SELECT pg_advisory_lock(:key);

-- name: erase_deleted_rows()!
-- Frees the room of deleted rows for others; https://www.postgresql.org/docs/current/sql-vacuum.html
VACUUM user_patterns, conversation_context, user_insights, legacy_rows;
