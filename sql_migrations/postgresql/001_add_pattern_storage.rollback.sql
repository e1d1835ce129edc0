-- Everything that Rex remembers goes with these tables: take a backup first.
-- Whoever still reads them is waited for, but not long: everybody who comes later would wait as well.
SET LOCAL lock_timeout = '2s';

DROP TABLE user_insights;

DROP TABLE conversation_context;

DROP TABLE user_patterns;
