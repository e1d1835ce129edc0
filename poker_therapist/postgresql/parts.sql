-- What a database holds besides tables, views, indexes and triggers, for the catalog.

-- Each kind of object is a row of the same columns, and a column of a catalog has the letters of that.
-- "char" is another type than CHAR.
-- noqa: disable=LT09,RF02,RF03,RF06

-- name: parts(schemas, beyond, all_schemas)
-- All else that pg_dump knows: of each the kind and name, of which table or view it is a part, and what it
-- is.
-- What has no function that gives its SQL is described by its row of the catalog, in which the names of other
-- objects stand for their numbers. Those that are in no schema are wanted only of a whole database.
WITH chosen AS (
    SELECT oid, nspname FROM pg_namespace
    WHERE nspname = ANY(:schemas)
),

wanted AS (
    SELECT CAST(:beyond AS BOOLEAN) AS beyond
),

relation AS (
    SELECT pg_class.* FROM pg_class INNER JOIN chosen ON pg_class.relnamespace = chosen.oid
),

rare (classid, objid, row) AS (
    SELECT CAST(NULL AS REGCLASS), CAST(NULL AS OID), CAST(NULL AS JSONB) -- all rare
),

part (classid, objid, of_relation, owner, acl, acl_kind, about, definition, fields) AS (
    SELECT
        CAST('pg_namespace' AS REGCLASS),
        oid,
        CAST(0 AS OID),
        nspowner,
        nspacl,
        'n',
        CAST(NULL AS TEXT),
        '',
        CAST(NULL AS JSONB)
    FROM pg_namespace
    WHERE nspname = ANY(:all_schemas)
    UNION ALL -- if proc
    SELECT
        CAST('pg_proc' AS REGCLASS), oid, 0, proowner, proacl, 'f', NULL,
        CASE
            WHEN prokind <> 'a'
                THEN
                    regexp_replace(
                        pg_get_functiondef(oid), '^(CREATE OR REPLACE \w+ )("([^"]|"")*"|[^".]*)\.', '\1'
                    )
        END,
        CASE WHEN prokind = 'a' THEN (
            SELECT
                to_jsonb(pg_aggregate)
                || jsonb_build_object('result', format_type(prorettype, NULL), 'parallel', proparallel)
            FROM pg_aggregate
            WHERE aggfnoid = pg_proc.oid
        ) END
    FROM pg_proc
    WHERE pronamespace IN (SELECT oid FROM chosen)
    UNION ALL -- if type composite
    SELECT
        CAST('pg_type' AS REGCLASS), oid, 0, typowner, typacl, 'T', NULL,
        CASE typtype
            WHEN 'e'
                THEN (
                    SELECT
                        'ENUM (' || string_agg(quote_literal(enumlabel), ', ' ORDER BY enumsortorder) || ')'
                    FROM pg_enum
                    WHERE enumtypid = pg_type.oid
                )
            WHEN 'c'
                THEN (
                    SELECT
                        'AS (' || string_agg(
                            quote_ident(attname) || ' ' || format_type(atttypid, atttypmod)
                            || coalesce(
                                ' COLLATE ' || CAST(CAST(nullif(attcollation, 0) AS REGCOLLATION) AS TEXT), ''
                            ),
                            ', ' ORDER BY attnum
                        ) || ')'
                    FROM pg_attribute
                    WHERE attrelid = typrelid AND attnum > 0 AND NOT attisdropped
                )
            WHEN 'd' THEN concat_ws(
                ' ',
                'DOMAIN AS', format_type(typbasetype, typtypmod),
                'COLLATE ' || CAST(nullif(typcollation, 0) AS REGCOLLATION),
                'DEFAULT ' || pg_get_expr(typdefaultbin, 0),
                (
                    SELECT
                        string_agg(
                            quote_ident(conname) || ' ' || pg_get_constraintdef(oid, TRUE),
                            ', ' ORDER BY conname
                        )
                    FROM pg_constraint
                    WHERE contypid = pg_type.oid AND (contype <> 'n' OR NOT convalidated)
                ),
                CASE WHEN typnotnull THEN 'NOT NULL' END
            )
        END,
        CASE typtype
            WHEN 'r'
                THEN (
                    SELECT to_jsonb(pg_range) - 'rngtypid' FROM pg_range
                    WHERE rngtypid = pg_type.oid
                )
            WHEN 'b' THEN to_jsonb(pg_type) - cast('{typname,typarray}' AS TEXT[])
        END
    FROM pg_type
    WHERE
        typnamespace IN (SELECT oid FROM chosen)
        AND typtype <> 'm'
        AND NOT EXISTS (
            SELECT FROM pg_type AS element
            WHERE element.typarray = pg_type.oid
        )
        AND (typrelid = 0 OR EXISTS (
            SELECT FROM pg_class
            WHERE pg_class.oid = typrelid AND relkind = 'c'
        ))
    UNION ALL
    SELECT
        CAST('pg_class' AS REGCLASS), oid, oid AS of_relation, relowner, relacl, 'r', NULL, '', NULL
    FROM relation
    WHERE relkind IN ('r', 'p', 'v', 'm', 'f')
    UNION ALL
    SELECT
        CAST('pg_class' AS REGCLASS),
        relation.oid,
        coalesce(tie.refobjid, 0),
        relation.relowner,
        relation.relacl,
        's',
        CASE
            WHEN tie.deptype = 'i' THEN (
                SELECT 'identity of ' || attname FROM pg_attribute
                WHERE attrelid = tie.refobjid AND attnum = tie.refobjsubid
            )
        END,
        concat_ws(
            ' ',
            CASE WHEN relation.relpersistence = 'u' THEN 'UNLOGGED' END,
            'AS',
            format_type(seqtypid, NULL),
            'INCREMENT',
            seqincrement,
            'MINVALUE',
            seqmin,
            'MAXVALUE',
            seqmax,
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
            tie.classid = CAST('pg_class' AS REGCLASS) AND relation.oid = tie.objid
            AND tie.refclassid = CAST('pg_class' AS REGCLASS) AND tie.deptype IN ('a', 'i')
    UNION ALL
    SELECT
        CAST('pg_class' AS REGCLASS),
        relation.oid,
        tie.refobjid,
        NULL,
        NULL,
        '',
        'name of the identity of ' || attname,
        relation.relname, NULL
    FROM relation
    INNER JOIN pg_depend AS tie
        ON
            relation.relkind = 'S' AND tie.classid = CAST('pg_class' AS REGCLASS) AND relation.oid = tie.objid
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
    UNION ALL -- if attribute
    SELECT
        CAST('pg_attribute' AS REGCLASS), 0, attrelid, relowner, attacl, 'c', 'column ' || attname, '', NULL
    FROM pg_attribute INNER JOIN relation ON attrelid = relation.oid
    WHERE attacl IS NOT NULL AND NOT attisdropped
    UNION ALL -- if rewrite
    SELECT
        CAST('pg_attrdef' AS REGCLASS),
        pg_attrdef.oid,
        adrelid,
        NULL,
        NULL,
        '',
        NULL,
        pg_get_expr(adbin, adrelid),
        NULL
    FROM pg_attrdef INNER JOIN relation ON adrelid = relation.oid
    WHERE relkind = 'v'
    UNION ALL -- if rewrite
    SELECT
        CAST('pg_attribute' AS REGCLASS), 0, attrelid, NULL, NULL, '', 'column ' || attname,
        concat_ws(' ', attstattarget, array_to_string(attoptions, ', '), attstorage, attcompression), NULL
    FROM pg_attribute INNER JOIN relation ON attrelid = relation.oid
    WHERE relkind = 'm' AND attnum > 0 AND NOT attisdropped
    UNION ALL -- if rewrite
    SELECT
        CAST('pg_rewrite' AS REGCLASS), pg_rewrite.oid, ev_class, NULL, NULL, '', NULL,
        pg_get_ruledef(pg_rewrite.oid, TRUE)
        || CASE ev_enabled
            WHEN 'D' THEN ' DISABLED' WHEN 'R' THEN ' ON REPLICA' WHEN 'A' THEN ' ALWAYS' ELSE ''
        END,
        NULL
    FROM pg_rewrite INNER JOIN relation ON ev_class = relation.oid
    WHERE rulename <> '_RETURN'
    UNION ALL -- if policy
    SELECT
        CAST('pg_policy' AS REGCLASS), pg_policy.oid, polrelid, NULL, NULL, '', NULL,
        concat_ws(
            ' ',
            CASE WHEN NOT polpermissive THEN 'RESTRICTIVE' END, 'FOR', polcmd, 'TO',
            (
                SELECT string_agg(coalesce(rolname, 'PUBLIC'), ', ' ORDER BY rolname)
                FROM unnest(polroles) AS named LEFT JOIN pg_roles ON named = pg_roles.oid
            ),
            'USING (' || pg_get_expr(polqual, polrelid, TRUE) || ')',
            'WITH CHECK (' || pg_get_expr(polwithcheck, polrelid, TRUE) || ')'
        ), NULL
    FROM pg_policy INNER JOIN relation ON polrelid = relation.oid
    UNION ALL -- if statistic_ext
    SELECT
        CAST('pg_statistic_ext' AS REGCLASS), pg_statistic_ext.oid, stxrelid, stxowner, NULL, '', NULL,
        regexp_replace(
            pg_get_statisticsobjdef(pg_statistic_ext.oid),
            '^(CREATE STATISTICS )("([^"]|"")*"|[^".]*)\.',
            '\1'
        )
        || CASE WHEN stxstattarget >= 0 THEN ' STATISTICS ' || stxstattarget ELSE '' END,
        NULL
    FROM pg_statistic_ext
    WHERE stxnamespace IN (SELECT oid FROM chosen)
    UNION ALL -- if ts_config
    SELECT
        CAST('pg_ts_config' AS REGCLASS), oid, 0, cfgowner, NULL, '', NULL, NULL,
        to_jsonb(pg_ts_config) || jsonb_build_object('map', (
            SELECT
                string_agg(
                    maptokentype || ' ' || CAST(mapdict AS REGDICTIONARY),
                    ', ' ORDER BY maptokentype, mapseqno
                )
            FROM pg_ts_config_map
            WHERE mapcfg = pg_ts_config.oid
        ))
    FROM pg_ts_config
    WHERE cfgnamespace IN (SELECT oid FROM chosen)
    UNION ALL -- if rare
    SELECT
        CAST('pg_user_mapping' AS REGCLASS), umid, 0, NULL, NULL, '', NULL, NULL,
        jsonb_build_object('umoptions', umoptions)
    FROM pg_user_mappings, wanted
    WHERE beyond
    UNION ALL -- if rare
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
    FROM pg_publication_rel, wanted
    WHERE beyond
    UNION ALL -- if rare
    SELECT
        classid, objid, 0,
        (
            SELECT CAST(value AS OID) FROM jsonb_each_text(row)
            WHERE key ~ 'owner$'
        ),
        CASE
            WHEN jsonb_typeof(own_acl) = 'array'
                THEN
                    ARRAY(SELECT CAST(jsonb_array_elements_text(own_acl) AS ACLITEM))
        END,
        CASE CAST(classid AS TEXT)
            WHEN 'pg_language' THEN 'l' WHEN 'pg_foreign_data_wrapper' THEN 'F' WHEN
                'pg_foreign_server'
                THEN 'S'
            ELSE ''
        END, NULL, NULL, row
    FROM rare
    CROSS JOIN LATERAL coalesce(row -> 'lanacl', row -> 'fdwacl', row -> 'srvacl') AS own_acl
    WHERE
        coalesce(
            (
                SELECT CAST(value AS OID) IN (SELECT oid FROM chosen) FROM jsonb_each_text(row)
                WHERE key ~ 'namespace$' AND key NOT IN ('extnamespace', 'defaclnamespace')
            ),
            (SELECT beyond FROM wanted)
        )
        -- What is in a family of operators is an extension's if that is.
        AND NOT EXISTS (
            SELECT FROM pg_depend AS dependence
            WHERE
                dependence.classid = CAST('pg_opfamily' AS REGCLASS)
                AND dependence.objid = CAST(coalesce(row ->> 'amopfamily', row ->> 'amprocfamily') AS OID)
                AND dependence.deptype = 'e'
        )
    UNION ALL -- if description seclabel
    -- These have nothing but a comment or a label.
    SELECT CAST('pg_class' AS REGCLASS), relation.oid, coalesce(indrelid, 0), NULL, NULL, '', NULL, '', NULL
    FROM relation LEFT JOIN pg_index ON relation.oid = indexrelid
    WHERE relkind IN ('i', 'I', 'c')
    UNION ALL -- if description seclabel
    SELECT CAST('pg_constraint' AS REGCLASS), pg_constraint.oid, conrelid, NULL, NULL, '', NULL, '', NULL
    FROM pg_constraint
    WHERE connamespace IN (SELECT oid FROM chosen)
    UNION ALL -- if description seclabel
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
    CROSS JOIN
        LATERAL pg_identify_object(
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
    SELECT fkcols, pktable FROM pg_get_catalog_foreign_keys()
    WHERE NOT is_array
),

remark (classid, objid, objsubid, kind, remark) AS (
    SELECT classoid, objoid, objsubid, 'comment on ', description FROM pg_description
    UNION ALL
    SELECT classoid, objoid, objsubid, 'security label of ' || provider || ' on ', label FROM pg_seclabel
)

SELECT of_relation, name AS about, name, definition, FALSE AS is_row, FALSE AS is_implied FROM ours
WHERE definition <> ''
UNION ALL -- if proc type ts_config rare
SELECT
    of_relation, name AS about, name,
    (
        SELECT
            string_agg(field.key || ' ' || CASE
                WHEN field.key ~ 'options$' THEN md5(field.value)
                WHEN refers.pktable IS NOT NULL AND field.value ~ '^\d+$'
                    THEN
                        coalesce(
                            (pg_identify_object(refers.pktable, CAST(field.value AS OID), 0)).identity, 'none'
                        )
                ELSE field.value
            END, ', ' ORDER BY field.key)
        FROM jsonb_each_text(ours.fields) AS field
        LEFT JOIN refers ON refers.fkcols = ARRAY[field.key]
        WHERE
            field.value IS NOT NULL
            AND (
                field.key !~ '^oid$|owner$|namespace$|acl$|^extconfig$|^collversion$'
                OR field.key IN ('extnamespace', 'defaclacl')
            )
    ), TRUE, FALSE
FROM ours
WHERE fields IS NOT NULL
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
FROM ours
CROSS JOIN
    LATERAL aclexplode(coalesce(acl, acldefault(CAST(acl_kind AS pg_catalog."char"), owner))) AS given
WHERE acl_kind <> '' AND (about IS NULL OR acl IS NOT NULL)
GROUP BY of_relation, name, acl IS NULL, owner, given.grantee
UNION ALL -- if description seclabel beyond
SELECT
    of_relation,
    remark.kind || coalesce('column ' || attname || ' of ', '') || name,
    name,
    remark.remark,
    FALSE,
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
