-- One row per user and event type, and per user and widely used category: how often, how often lately, and how long ago.
-- View: events(user_id, item_id, event_type, ts, value, category).
WITH past AS (
    SELECT user_id, event_type, category, coalesce(value, 0) AS value,
        date_diff('second', CAST(ts AS TIMESTAMP), {{week_start}}) / 86400.0 AS days_ago
    FROM events
    WHERE CAST(ts AS TIMESTAMP) < {{week_start}}
),
parts AS (
    SELECT user_id, 'type=' || event_type AS part, value, days_ago FROM past
    UNION ALL
    SELECT user_id, 'category=' || category, value, days_ago FROM past WHERE category IS NOT NULL
),
widespread AS (
    SELECT part FROM parts GROUP BY part ORDER BY count(DISTINCT user_id) DESC, part LIMIT {{most_parts}}
)
SELECT
    user_id,
    part,
    count(*) AS events,
    count(*) FILTER (days_ago <= 28) AS events_28,
    sum(value) AS value,
    min(days_ago) AS recency_days
FROM parts SEMI JOIN widespread USING (part)
GROUP BY user_id, part
ORDER BY user_id, part
