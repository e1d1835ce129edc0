-- The indexes of 001 again; no data is touched. As on the way there, nobody waits, and each statement can be
-- run again.
SET lock_timeout = 0;
SET statement_timeout = 0;

DROP INDEX CONCURRENTLY IF EXISTS idx_user_insights_user;
CREATE INDEX CONCURRENTLY idx_user_insights_user
ON user_insights (user_id, insight_type);

DROP INDEX CONCURRENTLY IF EXISTS idx_conversation_context_user;
CREATE INDEX CONCURRENTLY idx_conversation_context_user
ON conversation_context (user_id, session_id);

DROP INDEX CONCURRENTLY IF EXISTS idx_user_patterns_user_type;
CREATE INDEX CONCURRENTLY idx_user_patterns_user_type
ON user_patterns (user_id, pattern_type);

DROP INDEX CONCURRENTLY IF EXISTS idx_user_insights_importance;

DROP INDEX CONCURRENTLY IF EXISTS idx_user_insights_created;

DROP INDEX CONCURRENTLY IF EXISTS idx_user_insights_type;

DROP INDEX CONCURRENTLY IF EXISTS idx_conversation_context_expires;

DROP INDEX CONCURRENTLY IF EXISTS idx_conversation_context_created;

DROP INDEX CONCURRENTLY IF EXISTS idx_conversation_context_session;

DROP INDEX CONCURRENTLY IF EXISTS idx_conversation_context_key;

DROP INDEX CONCURRENTLY IF EXISTS idx_user_patterns_updated;
