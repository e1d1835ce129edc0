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
