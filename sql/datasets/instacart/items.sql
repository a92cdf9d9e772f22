-- Instacart products with the names of their department and aisle.
SELECT
    product_id AS item_id,
    product_name AS title,
    list_filter([department, aisle], lambda part: part IS NOT NULL AND part <> 'missing') AS category,
    NULL::VARCHAR AS brand,
    NULL::DOUBLE AS price
FROM source_items
LEFT JOIN aisles USING (aisle_id)
LEFT JOIN departments USING (department_id)
