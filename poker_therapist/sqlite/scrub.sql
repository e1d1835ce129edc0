-- What scrubbing asks of SQLite.

-- name: roots()
-- The first page of each b-tree but that of the schema; views, triggers and virtual tables have none.
SELECT rootpage FROM sqlite_schema
WHERE rootpage > 0;

-- name: sample_tables()
-- Where ANALYZE keeps keys of rows, if the library was built to.
SELECT name FROM sqlite_schema
WHERE name IN ('sqlite_stat3', 'sqlite_stat4');

-- name: delete_from_sqlite_stat3(table_name)
DELETE FROM sqlite_stat3
WHERE lower(tbl) = :table_name;

-- name: delete_from_sqlite_stat4(table_name)
DELETE FROM sqlite_stat4
WHERE lower(tbl) = :table_name;
