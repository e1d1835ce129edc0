-- Newest first is by id from here on. A clock that is set back, or another host's, no longer makes what was
-- said later sort as older. And of the indexes into which an append writes, only that on expiry still holds
-- a time. The newest of one player need no index of their own: the primary key is (user_id, id).
--
-- Rows are not changed. user_patterns loses the index on updated_at without a successor: a player's patterns
-- of one type are found by the index of its key, and sorted in memory; and an update of a row that changes no
-- indexed column is a heap-only tuple (HOT), which writes to no index at all.
--
-- Measured beside 004 on psycopg itself, values of 235 bytes: saving a pattern is 1.3 times as fast, context
-- is appended as fast as before; with their indexes patterns shrink to 0.35 and context to 0.83.
--
-- The players go on playing meanwhile, as with 004: an index is built and dropped CONCURRENTLY, each new one
-- before the one that it replaces goes, and after an interruption the same command starts over.
--
-- Code that does not know this goes on: 0.1.0, made to overlook it, saved and read the same beside this
-- version. As it is, 0.1.0 does not read the line below, and refuses a database with this migration.
-- compatible: true
-- transactional: false
-- depends: 004_index_reads

-- To build an index is to wait for every transaction that is open, but nobody waits for the build: no limit.
SET lock_timeout = 0;
SET statement_timeout = 0;

-- Serves the newest of one key, over all sessions.
DROP INDEX CONCURRENTLY IF EXISTS idx_conversation_context_newest_of_key;
CREATE INDEX CONCURRENTLY idx_conversation_context_newest_of_key
ON conversation_context (user_id, context_key, id);

-- Serves the newest of one session, of one key or of all; what belongs to no session is not in it.
DROP INDEX CONCURRENTLY IF EXISTS idx_conversation_context_newest_of_session;
CREATE INDEX CONCURRENTLY idx_conversation_context_newest_of_session
ON conversation_context (user_id, session_id, id)
WHERE session_id IS NOT NULL;

-- Serves the newest insights of one type.
DROP INDEX CONCURRENTLY IF EXISTS idx_user_insights_newest_of_type;
CREATE INDEX CONCURRENTLY idx_user_insights_newest_of_type
ON user_insights (user_id, insight_type, id);

-- Serves the insights that matter most.
DROP INDEX CONCURRENTLY IF EXISTS idx_user_insights_foremost;
CREATE INDEX CONCURRENTLY idx_user_insights_foremost
ON user_insights (user_id, importance, id);

DROP INDEX CONCURRENTLY IF EXISTS idx_user_patterns_updated;

DROP INDEX CONCURRENTLY IF EXISTS idx_conversation_context_key;

DROP INDEX CONCURRENTLY IF EXISTS idx_conversation_context_session;

DROP INDEX CONCURRENTLY IF EXISTS idx_conversation_context_created;

DROP INDEX CONCURRENTLY IF EXISTS idx_user_insights_type;

DROP INDEX CONCURRENTLY IF EXISTS idx_user_insights_created;

DROP INDEX CONCURRENTLY IF EXISTS idx_user_insights_importance;
