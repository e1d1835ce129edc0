"""Stand-ins for what Citus has, on a plain server."""

# They note what they are called with, and refuse what Citus would refuse.
LIKE_CITUS = """
    CREATE TABLE called (number INT GENERATED ALWAYS AS IDENTITY, what TEXT, of_table TEXT, colocated TEXT);
    CREATE FUNCTION create_distributed_table(t REGCLASS, by TEXT, colocate_with TEXT) RETURNS VOID
    LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM FROM pg_attribute WHERE attrelid = t AND attname = by AND by = 'user_id';
        ASSERT FOUND, format('%s is not distributed by player', t);
        INSERT INTO called (what, of_table, colocated) VALUES ('distribute', t::TEXT, colocate_with);
    END $$;
    CREATE FUNCTION truncate_local_data_after_distributing_table(t REGCLASS) RETURNS VOID LANGUAGE sql
    AS $$ INSERT INTO called (what, of_table) VALUES ('truncate', t::TEXT) $$;
    CREATE FUNCTION undistribute_table(t REGCLASS) RETURNS VOID LANGUAGE sql
    AS $$ INSERT INTO called (what, of_table) VALUES ('undistribute', t::TEXT) $$;
"""
