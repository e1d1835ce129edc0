-- What some schemas hold, as the server itself says it. Nothing here is written, and what an extension has made
-- is no part of it. A name in the first schema of the search path is as it is, in another one its schema goes
-- before it.

-- name: look_into(schemas)
-- The server leaves out a schema's name where the search path makes it plain: so what is the same in two
-- schemas reads the same. For this transaction alone.
SELECT
    set_config('jit', 'off', TRUE) AS jit,
    set_config('search_path', string_agg(quote_ident(name), ', ' ORDER BY place), TRUE) AS search_path
FROM unnest(CAST(:schemas AS TEXT [])) WITH ORDINALITY AS path (name, place);

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
    CASE WHEN namespace.nspname = current_schema() THEN '' ELSE namespace.nspname || '.' END || relation.relname
        AS name,
    namespace.nspname,
    relation.relname,
    relation.relkind,
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
                    SELECT inhparent FROM pg_inherits WHERE inhrelid = relation.oid ORDER BY inhseqno
                ) AS link
            ),
            pg_get_expr(relation.relpartbound, relation.oid),
            CASE WHEN relation.relkind IN ('r', 'p') THEN CASE relation.relreplident WHEN 'f' THEN 'REPLICA IDENTITY FULL' WHEN 'n' THEN 'REPLICA IDENTITY NOTHING' END END,
            (
                SELECT string_agg(
                    concat_ws(
                        ', ',
                        CASE WHEN made.indisreplident THEN 'REPLICA IDENTITY USING INDEX ' || entry.relname END,
                        CASE WHEN made.indisclustered THEN 'CLUSTER ON ' || entry.relname END
                    ), ', ' ORDER BY entry.relname
                )
                FROM pg_index AS made
                INNER JOIN pg_class AS entry ON made.indexrelid = entry.oid
                WHERE made.indrelid = relation.oid AND (made.indisreplident OR made.indisclustered)
            ),
            (SELECT 'USING ' || amname FROM pg_am WHERE oid = relation.relam AND amname <> 'heap'),
            (SELECT 'TABLESPACE ' || spcname FROM pg_tablespace WHERE oid = relation.reltablespace),
            (
                SELECT 'SERVER ' || server.srvname || coalesce(' OPTIONS ' || md5(CAST(foreign_table.ftoptions AS TEXT)), '')
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
    namespace.nspname = ANY(:schemas)
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
    namespace.nspname = ANY(:schemas)
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
    namespace.nspname = ANY(:schemas)
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
        (SELECT 'TABLESPACE ' || spcname FROM pg_tablespace WHERE oid = entry.reltablespace),
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
    namespace.nspname = ANY(:schemas)
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
WHERE namespace.nspname = ANY(:schemas) AND NOT made.tgisinternal
ORDER BY relation.relname, made.tgname;

-- name: parts(schemas, beyond, all_schemas)
-- All else that pg_dump knows: of each the kind and name, of which table or view it is a part, and what it is.
-- What has no function that gives its SQL is described by its row of the catalog, in which the names of other
-- objects stand for their numbers. Those that are in no schema are wanted only of a whole database.
WITH chosen AS (
    SELECT oid, nspname FROM pg_namespace WHERE nspname = ANY(:schemas)
),

wanted AS (
    SELECT CAST(:beyond AS BOOLEAN) AS beyond
),

relation AS (
    SELECT pg_class.* FROM pg_class INNER JOIN chosen ON pg_class.relnamespace = chosen.oid
),

part (classid, objid, of_relation, owner, acl, acl_kind, about, definition, fields) AS (
    SELECT CAST('pg_namespace' AS REGCLASS), oid, CAST(0 AS OID), nspowner, nspacl, 'n', CAST(NULL AS TEXT), '', CAST(NULL AS JSONB)
    FROM pg_namespace WHERE nspname = ANY(:all_schemas)
    UNION ALL
    SELECT
        CAST('pg_proc' AS REGCLASS), oid, 0, proowner, proacl, 'f', NULL,
        CASE WHEN prokind <> 'a' THEN
            regexp_replace(pg_get_functiondef(oid), '^(CREATE OR REPLACE \w+ )("([^"]|"")*"|[^".]*)\.', '\1')
        END,
        CASE WHEN prokind = 'a' THEN (
            SELECT to_jsonb(pg_aggregate) || jsonb_build_object('result', format_type(prorettype, NULL), 'parallel', proparallel)
            FROM pg_aggregate WHERE aggfnoid = pg_proc.oid
        ) END
    FROM pg_proc WHERE pronamespace IN (SELECT oid FROM chosen)
    UNION ALL
    SELECT
        CAST('pg_type' AS REGCLASS), oid, 0, typowner, typacl, 'T', NULL,
        CASE typtype
            WHEN 'e' THEN (
                SELECT 'ENUM (' || string_agg(quote_literal(enumlabel), ', ' ORDER BY enumsortorder) || ')'
                FROM pg_enum WHERE enumtypid = pg_type.oid
            )
            WHEN 'c' THEN (
                SELECT 'AS (' || string_agg(
                    quote_ident(attname) || ' ' || format_type(atttypid, atttypmod)
                    || coalesce(' COLLATE ' || CAST(CAST(nullif(attcollation, 0) AS REGCOLLATION) AS TEXT), ''), ', ' ORDER BY attnum
                ) || ')'
                FROM pg_attribute WHERE attrelid = typrelid AND attnum > 0 AND NOT attisdropped
            )
            WHEN 'd' THEN concat_ws(
                ' ',
                'DOMAIN AS', format_type(typbasetype, typtypmod),
                'COLLATE ' || CAST(nullif(typcollation, 0) AS REGCOLLATION), 'DEFAULT ' || typdefault,
                (
                    SELECT string_agg(quote_ident(conname) || ' ' || pg_get_constraintdef(oid, TRUE), ', ' ORDER BY conname)
                    FROM pg_constraint WHERE contypid = pg_type.oid AND (contype <> 'n' OR NOT convalidated)
                ),
                CASE WHEN typnotnull THEN 'NOT NULL' END
            )
        END,
        CASE typtype
            WHEN 'r' THEN (SELECT to_jsonb(pg_range) - 'rngtypid' FROM pg_range WHERE rngtypid = pg_type.oid)
            WHEN 'b' THEN to_jsonb(pg_type) - '{typname,typarray}'::TEXT []
        END
    FROM pg_type
    WHERE
        typnamespace IN (SELECT oid FROM chosen)
        AND typtype <> 'm'
        AND NOT EXISTS (SELECT FROM pg_type AS element WHERE element.typarray = pg_type.oid)
        AND (typrelid = 0 OR EXISTS (SELECT FROM pg_class WHERE pg_class.oid = typrelid AND relkind = 'c'))
    UNION ALL
    SELECT
        CAST('pg_class' AS REGCLASS), oid, oid, relowner, relacl, 'r', NULL, '', NULL
    FROM relation WHERE relkind IN ('r', 'p', 'v', 'm', 'f')
    UNION ALL
    SELECT
        CAST('pg_class' AS REGCLASS), relation.oid, coalesce(tie.refobjid, 0), relation.relowner, relation.relacl, 's',
        CASE
            WHEN tie.deptype = 'i' THEN (
                SELECT 'identity of ' || attname FROM pg_attribute
                WHERE attrelid = tie.refobjid AND attnum = tie.refobjsubid
            )
        END,
        concat_ws(
            ' ',
            CASE WHEN relation.relpersistence = 'u' THEN 'UNLOGGED' END,
            'AS', format_type(seqtypid, NULL), 'INCREMENT', seqincrement, 'MINVALUE', seqmin, 'MAXVALUE', seqmax,
            'START', seqstart, 'CACHE', seqcache, CASE WHEN seqcycle THEN 'CYCLE' END,
            CASE WHEN tie.deptype = 'a' THEN 'OWNED BY ' || (
                SELECT CAST(CAST(attrelid AS REGCLASS) AS TEXT) || '.' || attname FROM pg_attribute
                WHERE attrelid = tie.refobjid AND attnum = tie.refobjsubid
            ) END
        ), NULL
    FROM relation
    INNER JOIN pg_sequence ON relation.oid = pg_sequence.seqrelid
    LEFT JOIN pg_depend AS tie
        ON
            tie.classid = CAST('pg_class' AS REGCLASS) AND tie.objid = relation.oid
            AND tie.refclassid = CAST('pg_class' AS REGCLASS) AND tie.deptype IN ('a', 'i')
    UNION ALL
    SELECT
        CAST('pg_class' AS REGCLASS), relation.oid, tie.refobjid, NULL, NULL, '', 'name of the identity of ' || attname,
        relation.relname, NULL
    FROM relation
    INNER JOIN pg_depend AS tie
        ON
            relation.relkind = 'S' AND tie.classid = CAST('pg_class' AS REGCLASS) AND tie.objid = relation.oid
            AND tie.deptype = 'i'
    INNER JOIN pg_attribute ON attrelid = tie.refobjid AND attnum = tie.refobjsubid
    UNION ALL
    SELECT
        CAST('pg_constraint' AS REGCLASS), pg_constraint.oid, conrelid, NULL, NULL, '',
        'name of the NOT NULL of ' || attname, conname, NULL
    FROM pg_constraint
    INNER JOIN relation ON conrelid = relation.oid
    INNER JOIN pg_attribute ON attrelid = conrelid AND attnum = conkey[1]
    WHERE contype = 'n' AND conname <> relation.relname || '_' || attname || '_not_null'
    UNION ALL
    SELECT
        CAST('pg_attribute' AS REGCLASS), 0, attrelid, relowner, attacl, 'c', 'column ' || attname, '', NULL
    FROM pg_attribute INNER JOIN relation ON attrelid = relation.oid
    WHERE attacl IS NOT NULL AND NOT attisdropped
    UNION ALL
    SELECT
        CAST('pg_attrdef' AS REGCLASS), pg_attrdef.oid, adrelid, NULL, NULL, '', NULL, pg_get_expr(adbin, adrelid), NULL
    FROM pg_attrdef INNER JOIN relation ON adrelid = relation.oid WHERE relkind = 'v'
    UNION ALL
    SELECT
        CAST('pg_attribute' AS REGCLASS), 0, attrelid, NULL, NULL, '', 'column ' || attname,
        concat_ws(' ', attstattarget, array_to_string(attoptions, ', '), attstorage, attcompression), NULL
    FROM pg_attribute INNER JOIN relation ON attrelid = relation.oid
    WHERE relkind = 'm' AND attnum > 0 AND NOT attisdropped
    UNION ALL
    SELECT
        CAST('pg_rewrite' AS REGCLASS), pg_rewrite.oid, ev_class, NULL, NULL, '', NULL,
        pg_get_ruledef(pg_rewrite.oid, TRUE)
        || CASE ev_enabled WHEN 'D' THEN ' DISABLED' WHEN 'R' THEN ' ON REPLICA' WHEN 'A' THEN ' ALWAYS' ELSE '' END, NULL
    FROM pg_rewrite INNER JOIN relation ON ev_class = relation.oid WHERE rulename <> '_RETURN'
    UNION ALL
    SELECT
        CAST('pg_policy' AS REGCLASS), pg_policy.oid, polrelid, NULL, NULL, '', NULL,
        concat_ws(
            ' ',
            CASE WHEN NOT polpermissive THEN 'RESTRICTIVE' END, 'FOR', polcmd, 'TO',
            (SELECT string_agg(coalesce(rolname, 'PUBLIC'), ', ' ORDER BY rolname)
             FROM unnest(polroles) AS named LEFT JOIN pg_roles ON named = pg_roles.oid),
            'USING (' || pg_get_expr(polqual, polrelid, TRUE) || ')',
            'WITH CHECK (' || pg_get_expr(polwithcheck, polrelid, TRUE) || ')'
        ), NULL
    FROM pg_policy INNER JOIN relation ON polrelid = relation.oid
    UNION ALL
    SELECT
        CAST('pg_statistic_ext' AS REGCLASS), pg_statistic_ext.oid, stxrelid, stxowner, NULL, '', NULL,
        pg_get_statisticsobjdef(pg_statistic_ext.oid) || CASE WHEN stxstattarget >= 0 THEN ' STATISTICS ' || stxstattarget ELSE '' END,
        NULL
    FROM pg_statistic_ext WHERE stxnamespace IN (SELECT oid FROM chosen)
    UNION ALL
    SELECT CAST('pg_operator' AS REGCLASS), oid, 0, oprowner, NULL, '', NULL, NULL, to_jsonb(pg_operator) FROM pg_operator
    WHERE oprnamespace IN (SELECT oid FROM chosen)
    UNION ALL
    SELECT CAST('pg_opclass' AS REGCLASS), oid, 0, opcowner, NULL, '', NULL, NULL, to_jsonb(pg_opclass) FROM pg_opclass
    WHERE opcnamespace IN (SELECT oid FROM chosen)
    UNION ALL
    SELECT CAST('pg_opfamily' AS REGCLASS), oid, 0, opfowner, NULL, '', NULL, NULL, to_jsonb(pg_opfamily) FROM pg_opfamily
    WHERE opfnamespace IN (SELECT oid FROM chosen)
    UNION ALL
    SELECT CAST('pg_amop' AS REGCLASS), pg_amop.oid, 0, NULL, NULL, '', NULL, NULL, to_jsonb(pg_amop) FROM pg_amop
    INNER JOIN pg_opfamily ON amopfamily = pg_opfamily.oid
    WHERE opfnamespace IN (SELECT oid FROM chosen)
    UNION ALL
    SELECT CAST('pg_amproc' AS REGCLASS), pg_amproc.oid, 0, NULL, NULL, '', NULL, NULL, to_jsonb(pg_amproc) FROM pg_amproc
    INNER JOIN pg_opfamily ON amprocfamily = pg_opfamily.oid
    WHERE opfnamespace IN (SELECT oid FROM chosen)
    UNION ALL
    SELECT CAST('pg_collation' AS REGCLASS), oid, 0, collowner, NULL, '', NULL, NULL, to_jsonb(pg_collation) - 'collversion'
    FROM pg_collation WHERE collnamespace IN (SELECT oid FROM chosen)
    UNION ALL
    SELECT CAST('pg_conversion' AS REGCLASS), oid, 0, conowner, NULL, '', NULL, NULL, to_jsonb(pg_conversion) FROM pg_conversion
    WHERE connamespace IN (SELECT oid FROM chosen)
    UNION ALL
    SELECT CAST('pg_ts_parser' AS REGCLASS), oid, 0, NULL, NULL, '', NULL, NULL, to_jsonb(pg_ts_parser) FROM pg_ts_parser
    WHERE prsnamespace IN (SELECT oid FROM chosen)
    UNION ALL
    SELECT CAST('pg_ts_template' AS REGCLASS), oid, 0, NULL, NULL, '', NULL, NULL, to_jsonb(pg_ts_template) FROM pg_ts_template
    WHERE tmplnamespace IN (SELECT oid FROM chosen)
    UNION ALL
    SELECT CAST('pg_ts_dict' AS REGCLASS), oid, 0, dictowner, NULL, '', NULL, NULL, to_jsonb(pg_ts_dict) FROM pg_ts_dict
    WHERE dictnamespace IN (SELECT oid FROM chosen)
    UNION ALL
    SELECT
        CAST('pg_ts_config' AS REGCLASS), oid, 0, cfgowner, NULL, '', NULL, NULL,
        to_jsonb(pg_ts_config) || jsonb_build_object('map', (
            SELECT string_agg(maptokentype || ' ' || CAST(mapdict AS REGDICTIONARY), ', ' ORDER BY maptokentype, mapseqno)
            FROM pg_ts_config_map WHERE mapcfg = pg_ts_config.oid
        ))
    FROM pg_ts_config WHERE cfgnamespace IN (SELECT oid FROM chosen)
    UNION ALL
    SELECT CAST('pg_default_acl' AS REGCLASS), oid, 0, NULL, NULL, '', NULL, CAST(defaclacl AS TEXT), NULL
    FROM pg_default_acl, wanted
    WHERE (beyond AND defaclnamespace = 0) OR (beyond AND defaclnamespace IN (SELECT oid FROM chosen))
    UNION ALL
    SELECT CAST('pg_cast' AS REGCLASS), oid, 0, NULL, NULL, '', NULL, NULL, to_jsonb(pg_cast) FROM pg_cast, wanted WHERE beyond
    UNION ALL
    SELECT CAST('pg_transform' AS REGCLASS), oid, 0, NULL, NULL, '', NULL, NULL, to_jsonb(pg_transform)
    FROM pg_transform, wanted WHERE beyond
    UNION ALL
    SELECT CAST('pg_am' AS REGCLASS), oid, 0, NULL, NULL, '', NULL, NULL, to_jsonb(pg_am) FROM pg_am, wanted WHERE beyond
    UNION ALL
    SELECT CAST('pg_language' AS REGCLASS), oid, 0, lanowner, lanacl, 'l', NULL, NULL, to_jsonb(pg_language)
    FROM pg_language, wanted WHERE beyond
    UNION ALL
    SELECT CAST('pg_event_trigger' AS REGCLASS), oid, 0, evtowner, NULL, '', NULL, NULL, to_jsonb(pg_event_trigger)
    FROM pg_event_trigger, wanted WHERE beyond
    UNION ALL
    SELECT CAST('pg_extension' AS REGCLASS), pg_extension.oid, 0, extowner, NULL, '', NULL, extversion || ' in ' || nspname, NULL
    FROM pg_extension INNER JOIN pg_namespace ON extnamespace = pg_namespace.oid, wanted WHERE beyond
    UNION ALL
    SELECT
        CAST('pg_foreign_data_wrapper' AS REGCLASS), oid, 0, fdwowner, fdwacl, 'F', NULL, NULL, to_jsonb(pg_foreign_data_wrapper)
    FROM pg_foreign_data_wrapper, wanted WHERE beyond
    UNION ALL
    SELECT CAST('pg_foreign_server' AS REGCLASS), oid, 0, srvowner, srvacl, 'S', NULL, NULL, to_jsonb(pg_foreign_server)
    FROM pg_foreign_server, wanted WHERE beyond
    UNION ALL
    SELECT
        CAST('pg_user_mapping' AS REGCLASS), umid, 0, NULL, NULL, '', NULL, NULL, jsonb_build_object('umoptions', umoptions)
    FROM pg_user_mappings, wanted WHERE beyond
    UNION ALL
    SELECT
        CAST('pg_publication' AS REGCLASS), oid, 0, pubowner, NULL, '', NULL, NULL, to_jsonb(pg_publication)
    FROM pg_publication, wanted WHERE beyond
    UNION ALL
    SELECT
        CAST('pg_publication_rel' AS REGCLASS), pg_publication_rel.oid, 0, NULL, NULL, '', NULL,
        concat_ws(
            ' ',
            '(' || (
                SELECT string_agg(attname, ', ' ORDER BY attnum) FROM pg_attribute
                WHERE attrelid = prrelid AND attnum = ANY(prattrs)
            ) || ')',
            'WHERE ' || pg_get_expr(prqual, prrelid, TRUE), 'present'
        ), NULL
    FROM pg_publication_rel, wanted WHERE beyond
    UNION ALL
    SELECT CAST('pg_publication_namespace' AS REGCLASS), oid, 0, NULL, NULL, '', NULL, 'present', NULL
    FROM pg_publication_namespace, wanted WHERE beyond
    -- These have nothing but a comment or a label.
    UNION ALL
    SELECT CAST('pg_class' AS REGCLASS), relation.oid, coalesce(indrelid, 0), NULL, NULL, '', NULL, '', NULL
    FROM relation LEFT JOIN pg_index ON relation.oid = indexrelid WHERE relkind IN ('i', 'I', 'c')
    UNION ALL
    SELECT CAST('pg_constraint' AS REGCLASS), pg_constraint.oid, conrelid, NULL, NULL, '', NULL, '', NULL
    FROM pg_constraint WHERE connamespace IN (SELECT oid FROM chosen)
    UNION ALL
    SELECT CAST('pg_trigger' AS REGCLASS), pg_trigger.oid, tgrelid, NULL, NULL, '', NULL, '', NULL
    FROM pg_trigger INNER JOIN relation ON tgrelid = relation.oid
),

ours AS (
    SELECT
        part.*,
        coalesce(
            part.about || ' of ' || CAST(CAST(part.of_relation AS REGCLASS) AS TEXT),
            named.type || ' ' || named.identity
        ) AS name
    FROM part
    CROSS JOIN LATERAL pg_identify_object(
        CASE WHEN part.about IS NULL THEN part.classid ELSE CAST('pg_class' AS REGCLASS) END,
        CASE WHEN part.about IS NULL THEN part.objid ELSE 0 END,
        0
    ) AS named
    WHERE
        -- Those with a lower number are the server's own.
        (part.objid >= 16384 OR part.objid = 0 OR part.classid = CAST('pg_namespace' AS REGCLASS))
        AND NOT EXISTS (
            SELECT FROM pg_depend AS dependence
            WHERE
                dependence.deptype = 'e'
                AND (dependence.classid, dependence.objid) IN (
                    (part.classid, part.objid), (CAST('pg_class' AS REGCLASS), part.of_relation)
                )
        )
),

refers AS MATERIALIZED (
    SELECT fkcols, pktable FROM pg_get_catalog_foreign_keys() WHERE NOT is_array
),

remark (classid, objid, objsubid, kind, remark) AS (
    SELECT classoid, objoid, objsubid, 'comment on ', description FROM pg_description
    UNION ALL
    SELECT classoid, objoid, objsubid, 'security label of ' || provider || ' on ', label FROM pg_seclabel
)

SELECT of_relation, name AS about, name, definition, FALSE AS is_row, FALSE AS is_implied FROM ours
WHERE definition <> ''
UNION ALL
SELECT
    of_relation, name, name,
    (
        SELECT string_agg(field.key || ' ' || CASE
            WHEN field.key ~ 'options$' THEN md5(field.value)
            WHEN refers.pktable IS NOT NULL AND field.value ~ '^\d+$'
                THEN coalesce((pg_identify_object(refers.pktable, CAST(field.value AS OID), 0)).identity, 'none')
            ELSE field.value
        END, ', ' ORDER BY field.key)
        FROM jsonb_each_text(ours.fields) AS field
        LEFT JOIN refers ON refers.fkcols = ARRAY[field.key]
        WHERE field.key !~ '^oid$|owner$|namespace$|acl$' AND field.value IS NOT NULL
    ), TRUE, FALSE
FROM ours WHERE fields IS NOT NULL
UNION ALL
SELECT
    of_relation, 'owner of ' || name, name, CAST(CAST(owner AS REGROLE) AS TEXT), FALSE,
    owner = CAST(quote_ident(current_user) AS REGROLE)
FROM ours
WHERE owner IS NOT NULL AND acl_kind <> 'c' AND about IS NULL
UNION ALL
SELECT
    of_relation,
    'grant to ' || CASE given.grantee
        WHEN 0 THEN 'PUBLIC' WHEN owner THEN 'the owner' ELSE CAST(CAST(given.grantee AS REGROLE) AS TEXT)
    END || ' on ' || name,
    name,
    string_agg(
        given.privilege_type || CASE WHEN given.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END,
        ', ' ORDER BY given.privilege_type
    ),
    FALSE,
    acl IS NULL
FROM ours CROSS JOIN LATERAL aclexplode(coalesce(acl, acldefault(CAST(acl_kind AS "char"), owner))) AS given
WHERE acl_kind <> '' AND (about IS NULL OR acl IS NOT NULL)
GROUP BY of_relation, name, acl IS NULL, owner, given.grantee
UNION ALL
SELECT
    of_relation, remark.kind || coalesce('column ' || attname || ' of ', '') || name, name, remark.remark, FALSE,
    FALSE
FROM ours
INNER JOIN remark ON ours.classid = remark.classid AND ours.objid = remark.objid
LEFT JOIN pg_attribute
    ON
        remark.classid = CAST('pg_class' AS REGCLASS)
        AND attrelid = remark.objid
        AND attnum = remark.objsubid
        AND remark.objsubid > 0
WHERE NOT coalesce(starts_with(ours.about, 'name '), FALSE)
ORDER BY about;
