-- The rows that came from SQLite go; the SQLite database still has them.
-- Whoever still reads them is waited for, but not long: everybody who comes later would wait as well.
SET LOCAL lock_timeout = '2s';

DROP TABLE legacy_rows;
