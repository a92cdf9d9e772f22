-- YooChoose clicks and purchases in one log. The session is also the user: the log knows no other.
-- A price of 0 means that it was not recorded.
SELECT
    session_id AS user_id,
    item_id,
    'view' AS event_type,
    "timestamp" AS ts,
    NULL::DOUBLE AS value,
    NULL::VARCHAR AS quantity,
    session_id,
    source_file,
    source_row
FROM source_events
UNION ALL
SELECT
    session_id,
    item_id,
    'purchase',
    "timestamp",
    nullif(TRY_CAST(price AS DOUBLE) * TRY_CAST(quantity AS DOUBLE), 0),
    quantity,
    session_id,
    source_file,
    source_row
FROM buys
