-- What some schemas hold, as the server itself says it. Nothing here is written, and what an extension has
-- made is no part of it. A name in the first schema of the search path is as it is, in another one its schema
-- goes before it.

-- A column of a server's catalog has that one's letters.
-- noqa: disable=RF02,RF03

-- name: look_into(schemas)
-- The server leaves out a schema's name where the search path makes it plain: so what is the same in two
-- schemas reads the same. For this transaction alone.
SELECT
    set_config('jit', 'off', TRUE) AS jit,
    set_config('search_path', string_agg(quote_ident(name), ', ' ORDER BY place), TRUE) AS search_path
FROM unnest(CAST(:schemas AS TEXT[])) WITH ORDINALITY AS path (name, place);

-- name: other_schemas(schema)
-- Where an operator's own objects may be; those of extensions, and what we make for a while, are left out.
SELECT namespace.nspname FROM pg_namespace AS namespace
WHERE
    namespace.nspname <> :schema
    AND namespace.nspname <> 'information_schema'
    AND namespace.nspname !~ '^(pg_|poker_therapist_(before|rehearsal|scratch)_)'
    AND NOT EXISTS (
        SELECT FROM pg_depend AS dependence
        WHERE
            dependence.classid = CAST('pg_namespace' AS REGCLASS)
            AND dependence.objid = namespace.oid
            AND dependence.deptype = 'e'
    )
ORDER BY namespace.nspname;

-- name: extension_schemas()
SELECT DISTINCT namespace.nspname FROM pg_extension AS extension
INNER JOIN pg_namespace AS namespace ON extension.extnamespace = namespace.oid
WHERE namespace.nspname <> 'pg_catalog'
ORDER BY namespace.nspname;

-- name: relations(schemas)
-- Tables and views, with what is said of them as a whole.
SELECT
    relation.oid,
    namespace.nspname,
    relation.relname,
    relation.relkind,
    namespace.nspname = current_schema()
    OR (
        has_schema_privilege(namespace.oid, 'USAGE') AND has_table_privilege(relation.oid, 'SELECT')
    ) AS may_read,
    CASE WHEN namespace.nspname = current_schema() THEN '' ELSE namespace.nspname || '.' END
    || relation.relname
        AS name,
    CASE WHEN relation.relkind IN ('v', 'm') THEN pg_get_viewdef(relation.oid, TRUE) END AS view_definition,
    array_remove(
        ARRAY[
            CASE WHEN relation.relpersistence = 'u' THEN 'UNLOGGED' END,
            CASE relation.relkind
                WHEN 'p' THEN 'PARTITION BY ' || pg_get_partkeydef(relation.oid)
                WHEN 'f' THEN 'FOREIGN'
                WHEN 'm' THEN 'MATERIALIZED'
            END,
            CASE WHEN relation.relrowsecurity THEN 'ROW LEVEL SECURITY' END,
            CASE WHEN relation.relforcerowsecurity THEN 'FORCE ROW LEVEL SECURITY' END,
            'OF ' || CAST(nullif(relation.reloftype, 0) AS REGTYPE),
            (
                SELECT 'INHERITS (' || string_agg(CAST(CAST(link.inhparent AS REGCLASS) AS TEXT), ', ') || ')'
                FROM (
                    SELECT inhparent FROM pg_inherits
                    WHERE inhrelid = relation.oid
                    ORDER BY inhseqno
                ) AS link
            ),
            pg_get_expr(relation.relpartbound, relation.oid),
            CASE
                WHEN
                    relation.relkind IN ('r', 'p')
                    THEN
                        CASE relation.relreplident
                            WHEN 'f' THEN 'REPLICA IDENTITY FULL' WHEN 'n' THEN 'REPLICA IDENTITY NOTHING'
                        END
            END,
            (
                SELECT
                    string_agg(
                        concat_ws(
                            ', ',
                            CASE
                                WHEN made.indisreplident THEN 'REPLICA IDENTITY USING INDEX ' || entry.relname
                            END,
                            CASE WHEN made.indisclustered THEN 'CLUSTER ON ' || entry.relname END
                        ), ', ' ORDER BY entry.relname
                    )
                FROM pg_index AS made
                INNER JOIN pg_class AS entry ON made.indexrelid = entry.oid
                WHERE made.indrelid = relation.oid AND (made.indisreplident OR made.indisclustered)
            ),
            (
                SELECT 'USING ' || amname FROM pg_am
                WHERE oid = relation.relam AND amname <> 'heap'
            ),
            (
                SELECT 'TABLESPACE ' || spcname FROM pg_tablespace
                WHERE oid = relation.reltablespace
            ),
            (
                SELECT
                    'SERVER '
                    || server.srvname
                    || coalesce(' OPTIONS ' || md5(CAST(foreign_table.ftoptions AS TEXT)), '')
                FROM pg_foreign_table AS foreign_table
                INNER JOIN pg_foreign_server AS server ON foreign_table.ftserver = server.oid
                WHERE foreign_table.ftrelid = relation.oid
            ),
            (
                SELECT 'toast: ' || array_to_string(toast.reloptions, ', ') FROM pg_class AS toast
                WHERE toast.oid = relation.reltoastrelid
            )
        ],
        NULL
    ) || coalesce(relation.reloptions, '{}') AS options
FROM pg_class AS relation
INNER JOIN pg_namespace AS namespace ON relation.relnamespace = namespace.oid
WHERE
    namespace.nspname = any(:schemas)
    AND relation.relkind IN ('r', 'p', 'f', 'v', 'm')
    AND NOT EXISTS (
        SELECT FROM pg_depend AS dependence
        WHERE
            dependence.classid = CAST('pg_class' AS REGCLASS)
            AND dependence.objid = relation.oid
            AND dependence.deptype = 'e'
    )
ORDER BY name;

-- name: columns(schemas)
SELECT
    relation.oid,
    attribute.attname,
    format_type(attribute.atttypid, attribute.atttypmod) AS type,
    NOT attribute.attnotnull AS nullable,
    CASE WHEN attribute.attgenerated = '' THEN pg_get_expr(stored.adbin, stored.adrelid) END AS default_value,
    concat_ws(
        ' ',
        CASE
            WHEN attribute.attgenerated <> ''
                THEN 'GENERATED ALWAYS AS (' || pg_get_expr(stored.adbin, stored.adrelid) || ')'
        END,
        CASE attribute.attgenerated WHEN 's' THEN 'STORED' WHEN 'v' THEN 'VIRTUAL' END,
        CASE attribute.attidentity
            WHEN 'a' THEN 'GENERATED ALWAYS AS IDENTITY'
            WHEN 'd' THEN 'GENERATED BY DEFAULT AS IDENTITY'
        END,
        'COLLATE ' || quote_ident(collation_of.collname),
        CASE
            WHEN attribute.attstorage <> type_of.typstorage
                THEN 'STORAGE ' || CASE attribute.attstorage
                    WHEN 'p' THEN 'PLAIN' WHEN 'e' THEN 'EXTERNAL' WHEN 'm' THEN 'MAIN' ELSE 'EXTENDED'
                END
        END,
        CASE attribute.attcompression WHEN 'p' THEN 'COMPRESSION pglz' WHEN 'l' THEN 'COMPRESSION lz4' END,
        CASE WHEN attribute.attstattarget >= 0 THEN 'STATISTICS ' || attribute.attstattarget END,
        'WITH (' || array_to_string(attribute.attoptions, ', ') || ')',
        'OPTIONS ' || md5(CAST(attribute.attfdwoptions AS TEXT)),
        CASE WHEN attribute.attinhcount > 0 THEN 'INHERITED' END,
        CASE WHEN attribute.attinhcount > 0 AND attribute.attislocal THEN 'LOCAL' END
    ) AS extra
FROM pg_attribute AS attribute
INNER JOIN pg_class AS relation ON attribute.attrelid = relation.oid
INNER JOIN pg_namespace AS namespace ON relation.relnamespace = namespace.oid
INNER JOIN pg_type AS type_of ON attribute.atttypid = type_of.oid
LEFT JOIN pg_attrdef AS stored
    ON attribute.attrelid = stored.adrelid AND attribute.attnum = stored.adnum
LEFT JOIN pg_collation AS collation_of
    ON attribute.attcollation = collation_of.oid AND attribute.attcollation <> type_of.typcollation
WHERE
    namespace.nspname = any(:schemas)
    AND relation.relkind IN ('r', 'p', 'f')
    AND attribute.attnum > 0
    AND NOT attribute.attisdropped
ORDER BY relation.oid, attribute.attnum;

-- name: constraints(schemas)
-- PostgreSQL 18 lists NOT NULL too; it is said of the column, but for what is special.
SELECT
    relation.oid,
    rule.conname,
    rule.contype,
    rule.confdeltype,
    rule.confupdtype,
    CAST(CAST(rule.confrelid AS REGCLASS) AS TEXT) AS parent,
    pg_get_constraintdef(rule.oid, TRUE)
    || coalesce(' WITH (' || array_to_string(entry.reloptions, ', ') || ')', '')
    || CASE WHEN rule.coninhcount > 0 THEN ' INHERITED' ELSE '' END AS definition,
    ARRAY(
        SELECT attribute.attname
        FROM unnest(rule.conkey) WITH ORDINALITY AS part (attnum, place)
        INNER JOIN pg_attribute AS attribute
            ON rule.conrelid = attribute.attrelid AND part.attnum = attribute.attnum
        ORDER BY part.place
    ) AS column_names,
    pg_get_expr(rule.conbin, rule.conrelid, TRUE) AS condition,
    ARRAY(
        SELECT attribute.attname
        FROM unnest(rule.confkey) WITH ORDINALITY AS part (attnum, place)
        INNER JOIN pg_attribute AS attribute
            ON rule.confrelid = attribute.attrelid AND part.attnum = attribute.attnum
        ORDER BY part.place
    ) AS parent_columns
FROM pg_constraint AS rule
INNER JOIN pg_class AS relation ON rule.conrelid = relation.oid
INNER JOIN pg_namespace AS namespace ON relation.relnamespace = namespace.oid
LEFT JOIN pg_class AS entry ON rule.conindid = entry.oid AND rule.contype IN ('p', 'u', 'x')
WHERE
    namespace.nspname = any(:schemas)
    AND (
        rule.contype IN ('p', 'u', 'f', 'c', 'x')
        OR (rule.contype = 'n' AND (rule.connoinherit OR NOT rule.convalidated))
    )
ORDER BY relation.oid, rule.conname;

-- name: indexes(schemas)
-- Those that were made by themselves; a key's own is said with the key.
SELECT
    relation.oid,
    entry.relname,
    made.indisunique,
    ARRAY(
        SELECT
            pg_get_indexdef(made.indexrelid, place, TRUE)
            || coalesce(' COLLATE ' || quote_ident(collation_of.collname), '')
            || CASE WHEN family.opcdefault THEN '' ELSE ' ' || quote_ident(family.opcname) END
            || CASE made.indoption[place - 1]
                WHEN 1 THEN ' DESC NULLS LAST'
                WHEN 2 THEN ' NULLS FIRST'
                WHEN 3 THEN ' DESC'
                ELSE ''
            END
        FROM generate_series(1, made.indnkeyatts) AS place
        INNER JOIN pg_opclass AS family ON made.indclass[place - 1] = family.oid
        INNER JOIN pg_attribute AS part ON made.indexrelid = part.attrelid AND place = part.attnum
        INNER JOIN pg_type AS type_of ON part.atttypid = type_of.oid
        LEFT JOIN pg_attribute AS attribute
            ON made.indrelid = attribute.attrelid AND made.indkey[place - 1] = attribute.attnum
        LEFT JOIN pg_collation AS collation_of
            ON
                made.indcollation[place - 1] = collation_of.oid
                AND coalesce(attribute.attcollation, type_of.typcollation) <> collation_of.oid
        ORDER BY place
    ) AS column_texts,
    pg_get_expr(made.indpred, made.indrelid, TRUE) AS condition,
    concat_ws(
        ' ',
        CASE WHEN method.amname <> 'btree' THEN 'USING ' || method.amname END,
        'INCLUDE (' || (
            SELECT string_agg(pg_get_indexdef(made.indexrelid, place, TRUE), ', ' ORDER BY place)
            FROM generate_series(made.indnkeyatts + 1, made.indnatts) AS place
        ) || ')',
        CASE WHEN made.indnullsnotdistinct THEN 'NULLS NOT DISTINCT' END,
        'WITH (' || array_to_string(entry.reloptions, ', ') || ')',
        (
            SELECT 'TABLESPACE ' || spcname FROM pg_tablespace
            WHERE oid = entry.reltablespace
        ),
        (
            SELECT 'STATISTICS ' || string_agg(attnum || ': ' || attstattarget, ', ' ORDER BY attnum)
            FROM pg_attribute
            WHERE attrelid = entry.oid AND attstattarget >= 0
        ),
        (
            SELECT 'ATTACHED TO ' || CAST(CAST(inhparent AS REGCLASS) AS TEXT) FROM pg_inherits
            WHERE inhrelid = entry.oid
        ),
        -- What an interrupted CREATE or DROP INDEX CONCURRENTLY leaves: it serves nothing.
        CASE WHEN NOT (made.indisvalid AND made.indisready) THEN 'INVALID' END
    ) AS extra
FROM pg_index AS made
INNER JOIN pg_class AS entry ON made.indexrelid = entry.oid
INNER JOIN pg_am AS method ON entry.relam = method.oid
INNER JOIN pg_class AS relation ON made.indrelid = relation.oid
INNER JOIN pg_namespace AS namespace ON relation.relnamespace = namespace.oid
WHERE
    namespace.nspname = any(:schemas)
    AND NOT EXISTS (
        SELECT FROM pg_constraint AS rule
        WHERE rule.conindid = made.indexrelid AND rule.contype IN ('p', 'u', 'x')
    )
ORDER BY entry.relname;

-- name: triggers(schemas)
-- Citus has some of its own, which are internal.
SELECT
    relation.oid,
    made.tgname,
    pg_get_triggerdef(made.oid, TRUE)
    || CASE made.tgenabled
        WHEN 'D' THEN ' DISABLED' WHEN 'R' THEN ' ON REPLICA' WHEN 'A' THEN ' ALWAYS' ELSE ''
    END AS definition
FROM pg_trigger AS made
INNER JOIN pg_class AS relation ON made.tgrelid = relation.oid
INNER JOIN pg_namespace AS namespace ON relation.relnamespace = namespace.oid
WHERE namespace.nspname = any(:schemas) AND NOT made.tgisinternal
ORDER BY relation.relname, made.tgname;
