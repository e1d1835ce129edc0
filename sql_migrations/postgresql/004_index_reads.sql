-- Indexes for what the storage reads, each in the order in which it is read, so that the newest come first
-- without a sort; id is the last tie-break. The three indexes of 001 end before the column that sorts; they
-- go when those that take their place are there.
--
-- The players go on playing meanwhile: an index is built and dropped CONCURRENTLY. That takes more than one
-- transaction, and an interrupted build leaves an index that is of no use; so each is dropped before it is
-- made, and after an interruption the same command starts over from the first.
-- transactional: false
-- depends: 003_constrain_values

-- To build an index is to wait for every transaction that is open, but nobody waits for the build: no limit.
SET lock_timeout = 0;
SET statement_timeout = 0;

-- Serves the patterns of one type, last updated first, and all types of one player.
DROP INDEX CONCURRENTLY IF EXISTS idx_user_patterns_updated;
CREATE INDEX CONCURRENTLY idx_user_patterns_updated
ON user_patterns (user_id, pattern_type, updated_at, id);

-- Serves the newest of one key, over all sessions.
DROP INDEX CONCURRENTLY IF EXISTS idx_conversation_context_key;
CREATE INDEX CONCURRENTLY idx_conversation_context_key
ON conversation_context (user_id, context_key, created_at, id);

-- Serves the newest of one session, of one key or of all.
DROP INDEX CONCURRENTLY IF EXISTS idx_conversation_context_session;
CREATE INDEX CONCURRENTLY idx_conversation_context_session
ON conversation_context (user_id, session_id, created_at, id);

-- Serves the newest of one player.
DROP INDEX CONCURRENTLY IF EXISTS idx_conversation_context_created;
CREATE INDEX CONCURRENTLY idx_conversation_context_created
ON conversation_context (user_id, created_at, id);

-- Serves the purge; most context never expires and is not in it.
DROP INDEX CONCURRENTLY IF EXISTS idx_conversation_context_expires;
CREATE INDEX CONCURRENTLY idx_conversation_context_expires
ON conversation_context (user_id, expires_at)
WHERE expires_at IS NOT NULL;

-- Serves the newest insights of one type.
DROP INDEX CONCURRENTLY IF EXISTS idx_user_insights_type;
CREATE INDEX CONCURRENTLY idx_user_insights_type
ON user_insights (user_id, insight_type, created_at, id);

-- Serves the newest insights of all types.
DROP INDEX CONCURRENTLY IF EXISTS idx_user_insights_created;
CREATE INDEX CONCURRENTLY idx_user_insights_created
ON user_insights (user_id, created_at, id);

-- Serves the insights that matter most.
DROP INDEX CONCURRENTLY IF EXISTS idx_user_insights_importance;
CREATE INDEX CONCURRENTLY idx_user_insights_importance
ON user_insights (user_id, importance, created_at, id);

DROP INDEX CONCURRENTLY IF EXISTS idx_user_patterns_user_type;

DROP INDEX CONCURRENTLY IF EXISTS idx_conversation_context_user;

DROP INDEX CONCURRENTLY IF EXISTS idx_user_insights_user;
