-- The storage's queries for which PostgreSQL needs SQL of its own.
-- The others are in poker_therapist/queries.sql.
-- sqlfluff:dialect:postgres

-- name: purge_expired(user_id, same_user_id, now, limit)
-- Two savers may purge the same player at once. Each locks its rows in the order in which the plan meets
-- them, so without SKIP LOCKED the two could wait for each other, and one would fail through no fault of
-- its own.
DELETE FROM conversation_context
WHERE
    user_id = :user_id
    AND id IN (
        SELECT expired.id FROM conversation_context AS expired
        WHERE expired.user_id = :same_user_id AND expired.expires_at <= :now
        ORDER BY expired.expires_at
        LIMIT :limit
        FOR UPDATE SKIP LOCKED
    );

-- name: save_pattern_many(user_id, types, keys, json_values, confidences, created, updated)
-- Many rows of one player in one statement; the others are arrays, one for each parameter of save_pattern.
INSERT INTO user_patterns (
    user_id, pattern_type, pattern_key, pattern_value, confidence, created_at, updated_at
)
SELECT
    :user_id,
    new.*
FROM
    unnest(
        cast(:types AS TEXT[]),
        cast(:keys AS TEXT[]),
        cast(:json_values AS JSON[]),
        cast(:confidences AS DOUBLE PRECISION[]),
        cast(:created AS TIMESTAMPTZ[]),
        cast(:updated AS TIMESTAMPTZ[])
    ) AS new
ON CONFLICT (user_id, pattern_type, pattern_key) DO UPDATE SET
    pattern_value = excluded.pattern_value,
    confidence = excluded.confidence,
    updated_at = excluded.updated_at;

-- name: save_context_many(user_id, keys, json_values, sessions, created, expires)
-- The ids are given in the order of the arrays.
INSERT INTO conversation_context (
    user_id, context_key, context_value, session_id, created_at, expires_at
)
SELECT
    :user_id,
    new.context_key,
    new.context_value,
    new.session_id,
    new.created_at,
    new.expires_at
FROM
    unnest(
        cast(:keys AS TEXT[]),
        cast(:json_values AS JSON[]),
        cast(:sessions AS TEXT[]),
        cast(:created AS TIMESTAMPTZ[]),
        cast(:expires AS TIMESTAMPTZ[])
    ) WITH ORDINALITY AS new (context_key, context_value, session_id, created_at, expires_at, position)
ORDER BY new.position
RETURNING id;
