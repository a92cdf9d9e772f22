-- YooChoose products, gathered from the events. The category of a click is a number from 1 to 12 when it is one; 0 is missing,
-- S a special offer, and longer numbers are brands. The most frequent one counts.
WITH described AS (
    SELECT
        item_id,
        mode(category) FILTER (TRY_CAST(category AS BIGINT) BETWEEN 1 AND 12) AS category,
        mode(category) FILTER (TRY_CAST(category AS BIGINT) > 12) AS brand
    FROM source_items
    GROUP BY item_id
),
priced AS (
    SELECT item_id, median(TRY_CAST(price AS DOUBLE)) FILTER (TRY_CAST(price AS DOUBLE) > 0) AS price
    FROM buys
    GROUP BY item_id
)
SELECT
    item_id,
    NULL::VARCHAR AS title,
    CASE WHEN category IS NOT NULL THEN ['category ' || category] END AS category,
    'brand ' || brand AS brand,
    price
FROM described
FULL JOIN priced USING (item_id)
