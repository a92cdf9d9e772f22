-- Diginetica views and purchases. Time: the day plus the milliseconds since the session's first query; a pair that is no time
-- stays as text, so that the row is quarantined with it.
-- What a purchase was worth: the price from the catalogue, published as log2(price + 1).
WITH events AS (
    SELECT sessionId, userId, itemId, timeframe, eventdate, 'view' AS event_type, source_file, source_row
    FROM source_events
    UNION ALL
    SELECT sessionId, userId, itemId, timeframe, eventdate, 'purchase', source_file, source_row
    FROM purchases
),
prices AS (
    SELECT itemId, nullif(pow(2, any_value(TRY_CAST(pricelog2 AS DOUBLE))) - 1, 0) AS price
    FROM source_items
    GROUP BY itemId
)
SELECT
    coalesce(userId, 'session ' || sessionId) AS user_id,
    itemId AS item_id,
    event_type,
    coalesce(
        (TRY_CAST(eventdate AS TIMESTAMP) + to_milliseconds(TRY_CAST(timeframe AS BIGINT)))::VARCHAR,
        concat_ws(' + ', eventdate, timeframe)
    ) AS ts,
    CASE WHEN event_type = 'purchase' THEN price END AS value,
    sessionId AS session_id,
    source_file,
    source_row
FROM events
LEFT JOIN prices USING (itemId)
