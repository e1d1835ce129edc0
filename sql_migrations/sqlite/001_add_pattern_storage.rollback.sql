-- Everything that Rex remembers goes with these tables: take a backup first.
-- Indexes go with their table, and so do its rows of sqlite_sequence.
DROP TABLE user_insights;

DROP TABLE conversation_context;

DROP TABLE user_patterns;
