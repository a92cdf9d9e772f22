-- Diginetica products. Words of the names are hashed, so a product's text is its category. A price of 0 is not published.
SELECT
    itemId AS item_id,
    NULL::VARCHAR AS title,
    CASE WHEN categoryId IS NOT NULL THEN ['category ' || categoryId] END AS category,
    NULL::VARCHAR AS brand,
    nullif(pow(2, TRY_CAST(pricelog2 AS DOUBLE)) - 1, 0) AS price
FROM source_items
LEFT JOIN product_categories USING (itemId)
