-- The five logs of Synerise in one. Pages and searches name no product; what tells them apart is kept as text: the page's number,
-- the codes of the phrase.
WITH events AS (
    SELECT client_id, sku, 'purchase' AS event_type, "timestamp", NULL AS text, source_file, source_row FROM source_events
    UNION ALL
    SELECT client_id, sku, 'cart', "timestamp", NULL, source_file, source_row FROM add_to_cart
    UNION ALL
    SELECT client_id, sku, 'remove', "timestamp", NULL, source_file, source_row FROM remove_from_cart
    UNION ALL
    SELECT client_id, NULL, 'visit', "timestamp", 'page ' || url, source_file, source_row FROM page_visit
    UNION ALL
    SELECT client_id, NULL, 'search', "timestamp", query, source_file, source_row FROM search_query
)
SELECT
    client_id AS user_id,
    sku AS item_id,
    event_type,
    -- Published as text of one form: cast once, here, at a fraction of the cost of guessing.
    TRY_CAST("timestamp" AS TIMESTAMP) AS ts,
    text,
    source_file,
    source_row
FROM events
