-- The queries of version 0.2.0, as they were released.

-- All queries of the storage, for both engines. Each reads or writes the rows of one player, its first
-- parameter; only next_player_with_expired and users_of_... look at all players. Each finds its rows by an
-- index and reads them in its order, unless a comment has an exception. Newest first is by id, not by time.

-- name: save_pattern(user_id, pattern_type, pattern_key, pattern_value, confidence, created_at, updated_at)
-- Upsert: an existing pattern is replaced and keeps its id and created_at.
INSERT INTO user_patterns (
    user_id, pattern_type, pattern_key, pattern_value, confidence, created_at, updated_at
)
VALUES (:user_id, :pattern_type, :pattern_key, :pattern_value, :confidence, :created_at, :updated_at)
ON CONFLICT (user_id, pattern_type, pattern_key) DO UPDATE SET
    pattern_value = excluded.pattern_value,
    confidence = excluded.confidence,
    updated_at = excluded.updated_at;

-- name: get_pattern(user_id, pattern_type, pattern_key)
SELECT pattern_value FROM user_patterns
WHERE user_id = :user_id AND pattern_type = :pattern_type AND pattern_key = :pattern_key;

-- name: get_pattern_record(user_id, pattern_type, pattern_key)
SELECT
    id,
    pattern_value,
    confidence,
    created_at,
    updated_at
FROM user_patterns
WHERE user_id = :user_id AND pattern_type = :pattern_type AND pattern_key = :pattern_key;

-- name: get_patterns_by_type(user_id, pattern_type, min_confidence, since, until)
-- Last updated first: sorted in memory, since an index on updated_at would be written to by every save.
SELECT
    pattern_key,
    id,
    pattern_value,
    confidence,
    created_at,
    updated_at
FROM user_patterns
WHERE
    user_id = :user_id
    AND pattern_type = :pattern_type
    AND confidence >= :min_confidence
    AND updated_at >= :since
    AND updated_at < :until
ORDER BY updated_at DESC, id DESC;

-- name: list_pattern_types(user_id)
SELECT DISTINCT pattern_type FROM user_patterns
WHERE user_id = :user_id
ORDER BY pattern_type;

-- name: set_confidence(user_id, pattern_type, pattern_key, confidence, same_user_id)
-- The player comes first, as in every query. With the plus SQLite finds the row by its id.
WITH chosen AS (
    SELECT id FROM user_patterns
    WHERE user_id = :user_id AND pattern_type = :pattern_type AND pattern_key = :pattern_key
)

UPDATE user_patterns SET confidence = :confidence
WHERE +user_id = :same_user_id AND id IN (SELECT chosen.id FROM chosen);

-- name: recall_patterns(user_id, min_confidence)
-- Of each type, last updated first: sorted in memory, as above.
SELECT
    pattern_type,
    pattern_key,
    id,
    pattern_value,
    confidence,
    created_at,
    updated_at
FROM user_patterns
WHERE user_id = :user_id AND confidence >= :min_confidence
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
ORDER BY id DESC
LIMIT :limit;

-- name: get_context_of_session(user_id, context_key, session_id, now, limit)
-- Newest first.
SELECT context_value FROM conversation_context
WHERE
    user_id = :user_id
    AND context_key = :context_key
    AND session_id = :session_id
    AND (expires_at IS NULL OR expires_at > :now)
ORDER BY id DESC
LIMIT :limit;

-- name: context_items(user_id, now, last_id, since, until, limit)
-- Of every key, over all sessions, newest first.
SELECT
    id,
    context_key,
    context_value,
    session_id,
    created_at,
    expires_at
FROM conversation_context
WHERE
    user_id = :user_id
    AND (expires_at IS NULL OR expires_at > :now)
    AND id <= :last_id
    AND created_at >= :since
    AND created_at < :until
ORDER BY id DESC
LIMIT :limit;

-- name: context_items_of_key(user_id, context_key, now, last_id, since, until, limit)
-- Over all sessions, newest first.
SELECT
    id,
    context_key,
    context_value,
    session_id,
    created_at,
    expires_at
FROM conversation_context
WHERE
    user_id = :user_id
    AND context_key = :context_key
    AND (expires_at IS NULL OR expires_at > :now)
    AND id <= :last_id
    AND created_at >= :since
    AND created_at < :until
ORDER BY id DESC
LIMIT :limit;

-- name: context_items_of_session(user_id, session_id, now, last_id, since, until, limit)
-- Of every key, newest first.
SELECT
    id,
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
    AND id <= :last_id
    AND created_at >= :since
    AND created_at < :until
ORDER BY id DESC
LIMIT :limit;

-- name: context_items_of_key_and_session(user_id, context_key, session_id, now, last_id, since, until, limit)
-- Newest first.
SELECT
    id,
    context_key,
    context_value,
    session_id,
    created_at,
    expires_at
FROM conversation_context
WHERE
    user_id = :user_id
    AND context_key = :context_key
    AND session_id = :session_id
    AND (expires_at IS NULL OR expires_at > :now)
    AND id <= :last_id
    AND created_at >= :since
    AND created_at < :until
ORDER BY id DESC
LIMIT :limit;

-- name: list_sessions(user_id, now)
-- The one with the newest row first: sorted in memory, for a player has few sessions beside their rows.
SELECT session_id FROM conversation_context
WHERE
    user_id = :user_id
    AND session_id IS NOT NULL
    AND (expires_at IS NULL OR expires_at > :now)
GROUP BY session_id
ORDER BY max(id) DESC;

-- name: purge_expired(user_id, same_user_id, now, limit)
-- The longest expired first; a few at a time, so that no lock is held for long. With the plus SQLite
-- finds each row by its id, and does not go through all rows of the player.
DELETE FROM conversation_context
WHERE
    +user_id = :user_id
    AND id IN (
        SELECT expired.id FROM conversation_context AS expired
        WHERE expired.user_id = :same_user_id AND expired.expires_at <= :now
        ORDER BY expired.expires_at
        LIMIT :limit
    );

-- name: next_player_with_expired(first_user_id, now)
-- For the purge of all players, one after the other; the one query that needs all shards, because only the
-- rows themselves name the players.
SELECT user_id FROM conversation_context
WHERE user_id >= :first_user_id AND expires_at <= :now
ORDER BY user_id
LIMIT 1;

-- name: save_insight(user_id, insight_type, insight_data, importance, now)
INSERT INTO user_insights (user_id, insight_type, insight_data, importance, created_at)
VALUES (:user_id, :insight_type, :insight_data, :importance, :now);

-- name: get_insights(user_id, min_importance, last_id, since, until, limit)
-- Of every type, newest first; the plus keeps SQLite off the index on importance, which has another order.
SELECT
    id,
    insight_type,
    insight_data,
    importance,
    created_at
FROM user_insights
WHERE
    user_id = :user_id
    AND +importance >= :min_importance
    AND id <= :last_id
    AND created_at >= :since
    AND created_at < :until
ORDER BY id DESC
LIMIT :limit;

-- name: get_insights_of_type(user_id, insight_type, min_importance, last_id, since, until, limit)
-- Newest first.
SELECT
    id,
    insight_type,
    insight_data,
    importance,
    created_at
FROM user_insights
WHERE
    user_id = :user_id
    AND insight_type = :insight_type
    AND +importance >= :min_importance
    AND id <= :last_id
    AND created_at >= :since
    AND created_at < :until
ORDER BY id DESC
LIMIT :limit;

-- name: get_foremost_insights(user_id, importance, id, same_user_id, same_importance, min_importance, limit)
-- The most important first, the newer first of equal importance: the rest of equal importance, then the less
-- important. For (importance, id) < (...) SQLite would read all rows of equal importance again.
SELECT
    id,
    insight_type,
    insight_data,
    importance,
    created_at
FROM user_insights
WHERE user_id = :user_id AND importance = :importance AND id < :id
UNION ALL
SELECT
    id,
    insight_type,
    insight_data,
    importance,
    created_at
FROM user_insights
WHERE
    user_id = :same_user_id
    AND importance < :same_importance
    AND importance >= :min_importance
ORDER BY importance DESC, id DESC
LIMIT :limit;

-- name: export_user_patterns(user_id)
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

-- name: export_conversation_context(user_id)
-- Expired context that is not purged yet belongs to the player too.
SELECT
    id,
    context_key,
    context_value,
    session_id,
    created_at,
    expires_at
FROM conversation_context
WHERE user_id = :user_id
ORDER BY id;

-- name: export_user_insights(user_id)
SELECT
    id,
    insight_type,
    insight_data,
    importance,
    created_at
FROM user_insights
WHERE user_id = :user_id
ORDER BY id;

-- name: export_legacy_rows(user_id)
-- The original rows of the earlier app that the migrations had to change.
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

-- name: count_user_patterns(user_id)
SELECT count(*) FROM user_patterns
WHERE user_id = :user_id;

-- name: count_conversation_context(user_id)
SELECT count(*) FROM conversation_context
WHERE user_id = :user_id;

-- name: count_user_insights(user_id)
SELECT count(*) FROM user_insights
WHERE user_id = :user_id;

-- name: count_legacy_rows(user_id)
SELECT count(*) FROM legacy_rows
WHERE user_id = :user_id;

-- name: users_of_user_patterns(first_user_id, limit)
-- Reads each entry of the index from the first player on, up to the limit of players.
SELECT DISTINCT user_id FROM user_patterns
WHERE user_id >= :first_user_id
ORDER BY user_id
LIMIT :limit;

-- name: users_of_conversation_context(first_user_id, limit)
SELECT DISTINCT user_id FROM conversation_context
WHERE user_id >= :first_user_id
ORDER BY user_id
LIMIT :limit;

-- name: users_of_user_insights(first_user_id, limit)
SELECT DISTINCT user_id FROM user_insights
WHERE user_id >= :first_user_id
ORDER BY user_id
LIMIT :limit;

-- name: users_of_legacy_rows(first_user_id, last_user_id, limit)
-- On SQLite a user_id here may have any type: one that is not an integer belongs to no player.
SELECT DISTINCT user_id FROM legacy_rows
WHERE
    user_id >= :first_user_id
    AND user_id <= :last_user_id
    AND cast(user_id AS BIGINT) = user_id
ORDER BY user_id
LIMIT :limit;

-- name: delete_user_patterns(user_id)
DELETE FROM user_patterns
WHERE user_id = :user_id;

-- name: delete_conversation_context(user_id)
DELETE FROM conversation_context
WHERE user_id = :user_id;

-- name: delete_context_of_session(user_id, session_id)
DELETE FROM conversation_context
WHERE user_id = :user_id AND session_id = :session_id;

-- name: delete_user_insights(user_id)
DELETE FROM user_insights
WHERE user_id = :user_id;

-- name: delete_insights_of_type(user_id, insight_type)
DELETE FROM user_insights
WHERE user_id = :user_id AND insight_type = :insight_type;

-- name: delete_pattern(user_id, pattern_type, pattern_key)
DELETE FROM user_patterns
WHERE user_id = :user_id AND pattern_type = :pattern_type AND pattern_key = :pattern_key;

-- name: delete_context(user_id, id)
DELETE FROM conversation_context
WHERE user_id = :user_id AND id = :id;

-- name: delete_insight(user_id, id)
DELETE FROM user_insights
WHERE user_id = :user_id AND id = :id;

-- name: delete_legacy_rows(user_id)
DELETE FROM legacy_rows
WHERE user_id = :user_id;

-- name: delete_legacy_rows_of_table(user_id, table_name)
-- A row that is deleted from its table must not come back from here when 003 is rolled back.
DELETE FROM legacy_rows
WHERE user_id = :user_id AND table_name = :table_name;

-- name: delete_legacy_rows_of_session(user_id, session_id)
DELETE FROM legacy_rows
WHERE user_id = :user_id AND table_name = 'conversation_context' AND session_id = :session_id;

-- name: delete_legacy_row(user_id, table_name, row_id)
DELETE FROM legacy_rows
WHERE user_id = :user_id AND table_name = :table_name AND row_id = :row_id;

-- name: delete_legacy_row_of_pattern(user_id, same_user_id, pattern_type, pattern_key)
DELETE FROM legacy_rows
WHERE
    user_id = :user_id
    AND table_name = 'user_patterns'
    AND row_id IN (
        SELECT patterns.id FROM user_patterns AS patterns
        WHERE
            patterns.user_id = :same_user_id
            AND patterns.pattern_type = :pattern_type
            AND patterns.pattern_key = :pattern_key
    );

-- name: delete_legacy_rows_of_type(user_id, same_user_id, insight_type)
DELETE FROM legacy_rows
WHERE
    user_id = :user_id
    AND table_name = 'user_insights'
    AND row_id IN (
        SELECT insights.id FROM user_insights AS insights
        WHERE insights.user_id = :same_user_id AND insights.insight_type = :insight_type
    );
