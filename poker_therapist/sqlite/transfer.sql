-- What copying asks of SQLite.

-- name: columns(table_name)
SELECT name FROM pragma_table_info(:table_name);

-- name: last_id(table_name)
-- Where a table's counter stands; nothing if it has never counted.
SELECT seq FROM sqlite_sequence
WHERE name = :table_name;

-- name: forget_last_id(table_name)
DELETE FROM sqlite_sequence
WHERE name = :table_name;

-- name: keep_last_id(table_name, last_id)
INSERT INTO sqlite_sequence (name, seq)
VALUES (:table_name, :last_id);
