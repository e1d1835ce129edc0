-- Newest first is by id from here on. A clock that is set back, or another host's, no longer makes what was
-- said later sort as older. And of the indexes into which an append writes, only that on expiry still holds
-- a time, of 32 bytes. SQLite ends every index with the row's id, so each index below is read in that order.
--
-- Rows are not changed. user_patterns loses the index on updated_at without a successor: a player's patterns
-- of one type are found by the index of its key, and sorted in memory.
--
-- Measured beside 004 on sqlite3 itself, each in turn, values of 235 bytes (in brackets of 4 kB), as how many
-- times faster: appending context 1.2 with 5,000 rows, 1.3 with 300,000 (1.1); saving a pattern again 1.4
-- (1.2). The file of context shrinks to 0.77. A player's patterns of a type take 1.1 times as long with a
-- hundred, 1.25 times with 10,000. Tables clustered by player were tried and not taken: context by
-- (user_id, id) appends 1.2 times as fast (0.8); patterns by their key are saved 1.8 times as fast (1.1), but
-- a value is read 0.9 times as fast (0.6).
--
-- Code that does not know this goes on: 0.1.0, made to overlook it, saved and read the same beside this
-- version. As it is, 0.1.0 does not read the line below, and refuses a database with this migration.
-- compatible: true
-- depends: 004_index_reads

DROP INDEX idx_user_patterns_updated;

DROP INDEX idx_conversation_context_key;

-- Serves the newest of one key, over all sessions.
CREATE INDEX idx_conversation_context_newest_of_key
ON conversation_context (user_id, context_key);

DROP INDEX idx_conversation_context_session;

-- Serves the newest of one session, of one key or of all; what belongs to no session is not in it.
CREATE INDEX idx_conversation_context_newest_of_session
ON conversation_context (user_id, session_id)
WHERE session_id IS NOT NULL;

DROP INDEX idx_conversation_context_created;

-- Serves the newest of one player.
CREATE INDEX idx_conversation_context_newest
ON conversation_context (user_id);

DROP INDEX idx_user_insights_type;

-- Serves the newest insights of one type.
CREATE INDEX idx_user_insights_newest_of_type
ON user_insights (user_id, insight_type);

DROP INDEX idx_user_insights_created;

-- Serves the newest insights of all types.
CREATE INDEX idx_user_insights_newest
ON user_insights (user_id);

DROP INDEX idx_user_insights_importance;

-- Serves the insights that matter most.
CREATE INDEX idx_user_insights_foremost
ON user_insights (user_id, importance);
