-- name: blockers(pid)
-- Process 0 stands for a prepared transaction. Of others' sessions a role may not see everything.
SELECT
    blocking.pid,
    activity.application_name,
    activity.state,
    to_char(activity.xact_start, 'YYYY-MM-DD HH24:MI:SS OF') AS begun,
    to_char(activity.query_start, 'YYYY-MM-DD HH24:MI:SS OF') AS asked,
    left(activity.query, 1000) AS query
FROM (SELECT DISTINCT unnest(pg_blocking_pids(CAST(:pid AS INTEGER))) AS pid) AS blocking
LEFT JOIN pg_stat_activity AS activity ON blocking.pid = activity.pid
ORDER BY blocking.pid;
