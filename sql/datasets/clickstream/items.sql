-- The items of a generic clickstream: what its events name, at the price that they state.
WITH events AS (
    SELECT * FROM source_items
    UNION ALL BY NAME
    SELECT NULL AS price WHERE false
)
SELECT
    item_id::VARCHAR AS item_id,
    NULL::VARCHAR AS title,
    NULL::VARCHAR[] AS category,
    NULL::VARCHAR AS brand,
    TRY_CAST(price AS DOUBLE) AS price
FROM events
