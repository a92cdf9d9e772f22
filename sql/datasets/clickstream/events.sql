-- A generic clickstream. The second part has no rows: it gives the columns that a log may lack.
-- A price is worth something only where something was bought.
WITH events AS (
    SELECT * FROM source_events
    UNION ALL BY NAME
    SELECT NULL AS price, NULL AS quantity, NULL AS session_id, NULL AS text WHERE false
)
SELECT
    user_id,
    item_id,
    event_type,
    "timestamp" AS ts,
    CASE WHEN lower(trim(event_type)) = 'purchase' THEN price END AS value,
    quantity,
    session_id,
    text,
    source_file,
    source_row
FROM events
