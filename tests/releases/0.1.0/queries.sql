-- The queries of version 0.1.0, as they were released. Only the headers are as this version reads them: a
-- parameter is named as often as it is used, in the order in which it is.
-- `-- compatible: true` promises that code like this goes on: see tests/operator/test_compatible.py.

-- name: save_pattern(user_id, pattern_type, pattern_key, pattern_value, confidence, now, now)
-- Upsert: a belief that is there already is replaced, and keeps its id and created_at.
INSERT INTO user_patterns (
    user_id, pattern_type, pattern_key, pattern_value, confidence, created_at, updated_at
)
VALUES (:user_id, :pattern_type, :pattern_key, :pattern_value, :confidence, :now, :now)
ON CONFLICT (user_id, pattern_type, pattern_key) DO UPDATE SET
    pattern_value = excluded.pattern_value,
    confidence = excluded.confidence,
    updated_at = excluded.updated_at;

-- name: get_pattern(user_id, pattern_type, pattern_key)
SELECT pattern_value FROM user_patterns
WHERE user_id = :user_id AND pattern_type = :pattern_type AND pattern_key = :pattern_key;

-- name: get_patterns_by_type(user_id, pattern_type)
-- Last updated first.
SELECT
    pattern_key,
    pattern_value,
    confidence,
    created_at,
    updated_at
FROM user_patterns
WHERE user_id = :user_id AND pattern_type = :pattern_type
ORDER BY updated_at DESC, id DESC;

-- name: recall_patterns(user_id)
-- Of each type, last updated first.
SELECT
    pattern_type,
    pattern_key,
    pattern_value,
    confidence,
    created_at,
    updated_at
FROM user_patterns
WHERE user_id = :user_id
ORDER BY pattern_type DESC, updated_at DESC, id DESC;

-- name: save_context(user_id, context_key, context_value, session_id, now, expires_at)
INSERT INTO conversation_context (
    user_id, context_key, context_value, session_id, created_at, expires_at
)
VALUES (:user_id, :context_key, :context_value, :session_id, :now, :expires_at);

-- name: get_context(user_id, context_key, now, limit)
-- Over all sessions, newest first.
SELECT context_value FROM conversation_context
WHERE
    user_id = :user_id
    AND context_key = :context_key
    AND (expires_at IS NULL OR expires_at > :now)
ORDER BY created_at DESC, id DESC
LIMIT :limit;

-- name: get_context_of_session(user_id, session_id, context_key, now, limit)
-- Newest first.
SELECT context_value FROM conversation_context
WHERE
    user_id = :user_id
    AND session_id = :session_id
    AND context_key = :context_key
    AND (expires_at IS NULL OR expires_at > :now)
ORDER BY created_at DESC, id DESC
LIMIT :limit;

-- name: recall_context(user_id, now, limit)
-- Of every key, over all sessions, newest first.
SELECT
    context_key,
    context_value,
    session_id,
    created_at,
    expires_at
FROM conversation_context
WHERE user_id = :user_id AND (expires_at IS NULL OR expires_at > :now)
ORDER BY created_at DESC, id DESC
LIMIT :limit;

-- name: recall_context_of_session(user_id, session_id, now, limit)
-- Of every key, newest first.
SELECT
    context_key,
    context_value,
    session_id,
    created_at,
    expires_at
FROM conversation_context
WHERE
    user_id = :user_id
    AND session_id = :session_id
    AND (expires_at IS NULL OR expires_at > :now)
ORDER BY created_at DESC, id DESC
LIMIT :limit;

-- name: purge_expired(user_id, user_id, now, limit)
-- The longest expired first; a few at a time, so that nobody waits long for the lock. With the plus SQLite
-- finds each row by its id, and does not go through all rows of the player.
DELETE FROM conversation_context
WHERE
    +user_id = :user_id
    AND id IN (
        SELECT expired.id FROM conversation_context AS expired
        WHERE expired.user_id = :user_id AND expired.expires_at <= :now
        ORDER BY expired.expires_at
        LIMIT :limit
    );

-- name: next_player_with_expired(first_user_id, now)
-- For the purge of all, which goes from player to player; the one query that no single shard can answer, for
-- nothing else knows who the players are.
SELECT user_id FROM conversation_context
WHERE user_id >= :first_user_id AND expires_at <= :now
ORDER BY user_id
LIMIT 1;

-- name: save_insight(user_id, insight_type, insight_data, importance, now)
INSERT INTO user_insights (user_id, insight_type, insight_data, importance, created_at)
VALUES (:user_id, :insight_type, :insight_data, :importance, :now);

-- name: get_insights(user_id, min_importance, limit)
-- Of every type, newest first; the plus keeps SQLite off the index on importance, which has another order.
SELECT
    insight_type,
    insight_data,
    importance,
    created_at
FROM user_insights
WHERE user_id = :user_id AND +importance >= :min_importance
ORDER BY created_at DESC, id DESC
LIMIT :limit;

-- name: get_insights_of_type(user_id, insight_type, min_importance, limit)
-- Newest first.
SELECT
    insight_type,
    insight_data,
    importance,
    created_at
FROM user_insights
WHERE user_id = :user_id AND insight_type = :insight_type AND +importance >= :min_importance
ORDER BY created_at DESC, id DESC
LIMIT :limit;

-- name: recall_insights(user_id, limit)
-- What matters most first, the newer first of what matters as much.
SELECT
    insight_type,
    insight_data,
    importance,
    created_at
FROM user_insights
WHERE user_id = :user_id
ORDER BY importance DESC, created_at DESC, id DESC
LIMIT :limit;

-- name: export_patterns(user_id)
SELECT
    id,
    pattern_type,
    pattern_key,
    pattern_value,
    confidence,
    created_at,
    updated_at
FROM user_patterns
WHERE user_id = :user_id
ORDER BY pattern_type, pattern_key;

-- name: export_context(user_id)
-- What has expired and is still there belongs to the player too.
SELECT
    id,
    context_key,
    context_value,
    session_id,
    created_at,
    expires_at
FROM conversation_context
WHERE user_id = :user_id
ORDER BY created_at, id;

-- name: export_insights(user_id)
SELECT
    id,
    insight_type,
    insight_data,
    importance,
    created_at
FROM user_insights
WHERE user_id = :user_id
ORDER BY created_at, id;

-- name: export_legacy_rows(user_id)
-- What the earlier app wrote and the migrations had to change, as it was.
SELECT
    migration_id,
    table_name,
    row_id,
    kind,
    item_key,
    value,
    score,
    session_id,
    created_at,
    updated_at,
    expires_at
FROM legacy_rows
WHERE user_id = :user_id
ORDER BY migration_id, table_name, row_id;

-- name: delete_patterns(user_id)
DELETE FROM user_patterns
WHERE user_id = :user_id;

-- name: delete_context(user_id)
DELETE FROM conversation_context
WHERE user_id = :user_id;

-- name: delete_context_of_session(user_id, session_id)
DELETE FROM conversation_context
WHERE user_id = :user_id AND session_id = :session_id;

-- name: delete_insights(user_id)
DELETE FROM user_insights
WHERE user_id = :user_id;

-- name: delete_legacy_rows(user_id)
DELETE FROM legacy_rows
WHERE user_id = :user_id;

-- name: delete_legacy_rows_of_table(user_id, table_name)
-- What is deleted from a table must not come back from here when 003 is rolled back.
DELETE FROM legacy_rows
WHERE user_id = :user_id AND table_name = :table_name;

-- name: delete_legacy_rows_of_session(user_id, session_id)
DELETE FROM legacy_rows
WHERE user_id = :user_id AND table_name = 'conversation_context' AND session_id = :session_id;
