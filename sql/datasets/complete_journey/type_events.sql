-- Complete Journey purchase lines, with the product type as the item.
-- A product that the catalogue lacks, or that has no type there, keeps an id that no item has, so that it is quarantined
-- as unknown and not lost.
SELECT
    basket_id || '-' || transactions.product_id AS event_id,
    household_id AS user_id,
    coalesce(product_type, 'product ' || transactions.product_id) AS item_id,
    'purchase' AS event_type,
    transaction_timestamp AS ts,
    sales_value AS value,
    quantity,
    basket_id AS session_id,
    transactions.source_file,
    transactions.source_row
FROM source_events AS transactions
LEFT JOIN (SELECT product_id, product_type FROM source_items) AS products USING (product_id)
