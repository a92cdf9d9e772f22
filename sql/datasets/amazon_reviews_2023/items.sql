-- Amazon products. The path of categories is widest first; where it is empty the department stands alone.
-- Prices such as "from 14.99" are no number and left out.
SELECT
    parent_asin AS item_id,
    title,
    coalesce(
        nullif(json_transform(categories, '["VARCHAR"]'), []),
        CASE WHEN main_category IS NOT NULL THEN [main_category] END
    ) AS category,
    store AS brand,
    TRY_CAST(price AS DOUBLE) AS price
FROM source_items
