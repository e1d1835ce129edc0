-- One server is too small: the tables are spread over the nodes of a Citus cluster by player. All that is
-- known of one player lies on one node, in all four tables, so a query about a player asks one node.
--
-- Run it on the coordinator, with this folder as a source beside the one for PostgreSQL, in a database with
-- CREATE EXTENSION citus and its nodes added. Written for Citus 12.1 to 14, after its documentation and its
-- own tests, which distribute co-located tables with rows in one transaction. Until then they must be plain
-- tables: Citus refuses to convert one that it manages already (by citus_add_local_table_to_metadata, or a
-- foreign key to a reference table) and that counts its ids by itself.
-- Whoever writes waits until the rows are copied.
-- depends: 004_index_reads
SET LOCAL lock_timeout = '2s';

-- The copying may take longer than a query may.
SET LOCAL statement_timeout = 0;

SELECT create_distributed_table('user_patterns', 'user_id', colocate_with => 'none');

SELECT create_distributed_table('conversation_context', 'user_id', colocate_with => 'user_patterns');

SELECT create_distributed_table('user_insights', 'user_id', colocate_with => 'user_patterns');

SELECT create_distributed_table('legacy_rows', 'user_id', colocate_with => 'user_patterns');

-- Citus leaves the rows that it has copied on the coordinator's disk, where nobody sees them and no player is
-- ever forgotten.
SELECT truncate_local_data_after_distributing_table('user_patterns');

SELECT truncate_local_data_after_distributing_table('conversation_context');

SELECT truncate_local_data_after_distributing_table('user_insights');

SELECT truncate_local_data_after_distributing_table('legacy_rows');
