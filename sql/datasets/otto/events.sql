-- OTTO: a line is a session with the list of its events. The session is the user.
-- A session without a readable event keeps one row without a time, which is then quarantined and not lost.
WITH unfolded AS (
    SELECT
        session AS user_id,
        source_file,
        source_row,
        json_transform(events, '[{"aid": "VARCHAR", "ts": "BIGINT", "type": "VARCHAR"}]') AS list
    FROM source_events
),
each AS (
    SELECT
        user_id,
        source_file,
        source_row,
        unnest(CASE WHEN len(list) > 0 THEN list ELSE [NULL] END) AS event,
        generate_subscripts(CASE WHEN len(list) > 0 THEN list ELSE [NULL] END, 1) - 1 AS position
    FROM unfolded
)
SELECT
    user_id,
    event.aid AS item_id,
    CASE event.type
        WHEN 'clicks' THEN 'view'
        WHEN 'carts' THEN 'cart'
        WHEN 'orders' THEN 'purchase'
        ELSE event.type
    END AS event_type,
    event.ts AS ts,
    source_file,
    -- One source row an event; no session has a million of them.
    source_row * 1000000 + position AS source_row
FROM each
