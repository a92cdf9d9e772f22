-- Synerise products: names are codes, and a price is the rank of a price bucket, so the category is all that can be read.
SELECT
    sku::VARCHAR AS item_id,
    NULL::VARCHAR AS title,
    CASE WHEN category IS NOT NULL THEN ['category ' || category] END AS category,
    NULL::VARCHAR AS brand,
    NULL::DOUBLE AS price
FROM source_items
