-- Complete Journey product types. A type that stands in several departments takes the path that most of its products have.
SELECT
    product_type AS item_id,
    product_type AS title,
    list_filter([department, product_category], lambda part: part IS NOT NULL) AS category,
    NULL::VARCHAR AS brand,
    NULL::DOUBLE AS price
FROM source_items
WHERE product_type IS NOT NULL
