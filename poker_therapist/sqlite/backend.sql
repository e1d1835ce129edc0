-- What the SQLite backend asks.

-- name: all_tables()
SELECT name FROM sqlite_schema
WHERE type = 'table';

-- name: user_tables()
-- Tables that hold somebody's data, not the bookkeeping of SQLite, yoyo or ours.
SELECT name FROM sqlite_schema
WHERE
    type = 'table'
    AND name NOT GLOB 'sqlite_*'
    AND name NOT GLOB '_yoyo_*'
    AND name NOT IN ('yoyo_lock', '_migration_text');

-- name: schema_version()
SELECT schema_version FROM pragma_schema_version;
