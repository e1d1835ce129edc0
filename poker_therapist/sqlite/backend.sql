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

-- name: note_violations()
-- In a temporary table, which may spill to disk: an old database can have one for each of its rows.
CREATE TEMPORARY TABLE noted_violation AS
SELECT
    "rowid" AS row_id,
    "table" AS child,
    parent
FROM pragma_foreign_key_check;

-- name: note_foreign_keys()
CREATE TEMPORARY TABLE noted_foreign_key AS
SELECT
    child.name AS child,
    foreign_key."table" AS parent
FROM sqlite_schema AS child, pragma_foreign_key_list(child.name) AS foreign_key
WHERE child.type = 'table';

-- name: new_violation(old_keys_only)
-- A rollback may bring back a foreign key that never held, as 003 does: there, only the keys from before it
-- are asked about. The number stands first, for it is compared sooner than a name is.
SELECT
    "rowid",
    "table",
    parent
FROM pragma_foreign_key_check
WHERE
    NOT :old_keys_only
    OR ("table", parent) IN (
        SELECT
            noted.child,
            noted.parent
        FROM noted_foreign_key AS noted
    )
EXCEPT
SELECT
    row_id,
    child,
    parent
FROM noted_violation
LIMIT 1;

-- name: forget_violations()
DROP TABLE noted_violation;

-- name: forget_foreign_keys()
DROP TABLE noted_foreign_key;
