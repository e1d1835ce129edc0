-- Where the tables are, and what could stand in the way.

-- name: there(relations)
-- What there is of these, and its kind. Every session asks this: the server has no tables to plan for.
SELECT
    asked.name,
    (pg_identify_object(CAST('pg_class' AS REGCLASS), to_regclass(asked.name), 0)).type AS kind
FROM unnest(CAST(:relations AS TEXT[])) AS asked (name)
WHERE to_regclass(asked.name) IS NOT NULL;

-- name: of_superusers(relations, functions)
SELECT asked.name FROM unnest(CAST(:relations AS TEXT[])) AS asked (name)
INNER JOIN pg_class AS relation ON relation.oid = to_regclass(asked.name)
INNER JOIN pg_roles AS owner ON relation.relowner = owner.oid AND owner.rolsuper
UNION ALL
SELECT asked.name FROM unnest(CAST(:functions AS TEXT[])) AS asked (name)
INNER JOIN pg_proc AS function ON function.oid = to_regprocedure(asked.name)
INNER JOIN pg_roles AS owner ON function.proowner = owner.oid AND owner.rolsuper;

-- name: strangers(names)
-- What of these names, with their schemas, is another role's: a function, a type or an operator's.
WITH stranger AS (
    SELECT other.oid
    FROM pg_roles AS other
    INNER JOIN pg_roles AS me ON me.rolname = current_user
    WHERE
        NOT other.rolsuper
        AND other.oid <> me.oid
        AND (me.rolsuper OR NOT pg_has_role(me.oid, other.oid, 'USAGE'))
),

made AS (
    SELECT
        pronamespace AS namespace,
        CAST(proname AS TEXT) AS name,
        proowner AS owner
    FROM pg_proc
    UNION ALL
    SELECT
        typnamespace,
        CAST(typname AS TEXT),
        typowner
    FROM pg_type
    WHERE typtype <> 'c' AND typelem = 0
    UNION ALL
    SELECT
        collnamespace,
        CAST(collname AS TEXT),
        collowner
    FROM pg_collation
)

SELECT CAST(namespace.nspname AS TEXT) || '.' || made.name
FROM made
INNER JOIN pg_namespace AS namespace ON made.namespace = namespace.oid
INNER JOIN stranger ON made.owner = stranger.oid
WHERE CAST(namespace.nspname AS TEXT) || '.' || made.name = any(CAST(:names AS TEXT[]));

-- name: has_functions()
-- Or operators, which are not the server's own: to plan the next query takes long.
SELECT greatest((SELECT max(oid) FROM pg_proc), (SELECT max(oid) FROM pg_operator)) >= 16384 AS has_any;

-- name: shadows(function_schemas, operator_schemas)
-- What roles other than this one and superusers have made that a statement could find in the place of what is
-- PostgreSQL's own: a function whose arguments fit a call better; an operator.
WITH stranger AS (
    SELECT
        other.oid,
        CAST(other.rolname AS TEXT) AS owner
    FROM pg_roles AS other
    INNER JOIN pg_roles AS me ON me.rolname = current_user
    WHERE
        NOT other.rolsuper
        AND other.oid <> me.oid
        AND (me.rolsuper OR NOT pg_has_role(me.oid, other.oid, 'USAGE'))
)

SELECT
    CAST(made.proname AS TEXT) AS name,
    'function ' || CAST(CAST(made.oid AS REGPROCEDURE) AS TEXT) AS what,
    stranger.owner
FROM pg_proc AS made
INNER JOIN pg_namespace AS namespace ON made.pronamespace = namespace.oid
INNER JOIN stranger ON made.proowner = stranger.oid
WHERE
    namespace.nspname = any(CAST(:function_schemas AS TEXT[]))
    AND EXISTS (
        SELECT FROM pg_proc AS own INNER JOIN pg_namespace AS catalog ON own.pronamespace = catalog.oid
        WHERE catalog.nspname = 'pg_catalog' AND own.proname = made.proname
    )
    AND NOT EXISTS (
        SELECT FROM pg_proc AS own INNER JOIN pg_namespace AS catalog ON own.pronamespace = catalog.oid
        WHERE
            catalog.nspname = 'pg_catalog'
            AND own.proname = made.proname
            AND own.proargtypes = made.proargtypes
    )
UNION ALL
SELECT
    '' AS name,
    'operator ' || CAST(CAST(made.oid AS REGOPERATOR) AS TEXT) AS what,
    stranger.owner
FROM pg_operator AS made
INNER JOIN pg_namespace AS namespace ON made.oprnamespace = namespace.oid
INNER JOIN stranger ON made.oprowner = stranger.oid
WHERE namespace.nspname = any(CAST(:operator_schemas AS TEXT[]));
