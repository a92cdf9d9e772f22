-- OTTO products: nothing is published but their numbers.
SELECT DISTINCT
    unnest(json_transform(events, '[{"aid": "VARCHAR"}]')).aid AS item_id,
    NULL::VARCHAR AS title,
    NULL::VARCHAR[] AS category,
    NULL::VARCHAR AS brand,
    NULL::DOUBLE AS price
FROM source_items
