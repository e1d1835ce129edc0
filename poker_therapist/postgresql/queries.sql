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

-- name: get_foremost_insights(user_id, importance, id, same_user_id, same_importance, min_importance, limit)
-- Here an index finds the place in one step, and for the two parts of the other query PostgreSQL would sort.
SELECT
    id,
    insight_type,
    insight_data,
    importance,
    created_at
FROM user_insights
WHERE
    user_id = :user_id
    AND (importance, id) < (:importance, :id)
    AND user_id = :same_user_id
    AND importance <= :same_importance
    AND importance >= :min_importance
ORDER BY importance DESC, id DESC
LIMIT :limit;

-- name: save_pattern_many(user_id, rows, lock)
-- Many rows of one player in one statement: as JSON, an array with the other values of save_pattern for each.
-- It waits for transactions about the player, and they for it: each locks rows in an order of its own.
INSERT INTO user_patterns (
    user_id, pattern_type, pattern_key, pattern_value, confidence, created_at, updated_at
)
SELECT
    :user_id,
    new.given ->> 0,
    new.given ->> 1,
    cast(new.given ->> 2 AS JSON),
    cast(new.given ->> 3 AS DOUBLE PRECISION),
    cast(new.given ->> 4 AS TIMESTAMPTZ),
    cast(new.given ->> 5 AS TIMESTAMPTZ)
FROM json_array_elements(cast(:rows AS JSON)) AS new (given)
WHERE (SELECT pg_advisory_xact_lock(:lock)) IS NOT NULL
ON CONFLICT (user_id, pattern_type, pattern_key) DO UPDATE SET
    pattern_value = excluded.pattern_value,
    confidence = excluded.confidence,
    updated_at = excluded.updated_at;

-- name: save_context_many(user_id, rows, lock)
-- The same for save_context; the ids are given in the order of the rows.
INSERT INTO conversation_context (
    user_id, context_key, context_value, session_id, created_at, expires_at
)
SELECT
    :user_id,
    new.given ->> 0,
    cast(new.given ->> 1 AS JSON),
    new.given ->> 2,
    cast(new.given ->> 3 AS TIMESTAMPTZ),
    cast(new.given ->> 4 AS TIMESTAMPTZ)
FROM json_array_elements(cast(:rows AS JSON)) WITH ORDINALITY AS new (given, position)
WHERE (SELECT pg_advisory_xact_lock(:lock)) IS NOT NULL
ORDER BY new.position
RETURNING id;
