-- One row per user with an event before the week: recency, frequency and value over three windows, and habits of the clock.
-- View: events(user_id, item_id, event_type, ts, value, category). Days are UTC.
WITH past AS (
    SELECT user_id, item_id, category, coalesce(value, 0) AS value, CAST(ts AS TIMESTAMP) AS ts,
        date_diff('second', CAST(ts AS TIMESTAMP), {{week_start}}) / 86400.0 AS days_ago
    FROM events
    WHERE CAST(ts AS TIMESTAMP) < {{week_start}}
),
active AS (
    SELECT user_id, ts::DATE AS day, ts::DATE - lag(ts::DATE) OVER (PARTITION BY user_id ORDER BY ts::DATE) AS gap_days
    FROM past
    GROUP BY user_id, ts::DATE
),
rhythm AS (
    SELECT
        user_id,
        count(*) AS log_active_days,
        count(*) FILTER (day >= {{week_start}}::DATE - 28) AS log_active_days_28,
        coalesce(avg(gap_days), 0) AS log_gap_days_mean,
        coalesce(stddev_pop(gap_days), 0) AS log_gap_days_std,
        coalesce(max(gap_days), 0) AS log_gap_days_max
    FROM active
    GROUP BY user_id
)
SELECT
    user_id,
    min(days_ago) AS log_recency_days,
    max(days_ago) AS log_tenure_days,
    count(*) AS log_events,
    count(*) FILTER (days_ago <= 28) AS log_events_28,
    count(*) FILTER (days_ago <= 7) AS log_events_7,
    any_value(log_active_days) AS log_active_days,
    any_value(log_active_days_28) AS log_active_days_28,
    any_value(log_gap_days_mean) AS log_gap_days_mean,
    any_value(log_gap_days_std) AS log_gap_days_std,
    any_value(log_gap_days_max) AS log_gap_days_max,
    sum(value) AS log_value,
    coalesce(sum(value) FILTER (days_ago <= 28), 0) AS log_value_28,
    coalesce(sum(value) FILTER (days_ago <= 7), 0) AS log_value_7,
    avg(value) AS log_value_mean,
    max(value) AS log_value_max,
    count(DISTINCT item_id) AS log_distinct_items,
    count(DISTINCT category) AS log_distinct_categories,
    count(DISTINCT item_id) / count(*) AS share_distinct_items,
    count(*) FILTER (hour(ts) < 6) / count(*) AS share_night,
    count(*) FILTER (hour(ts) BETWEEN 6 AND 11) / count(*) AS share_morning,
    count(*) FILTER (hour(ts) >= 18) / count(*) AS share_evening,
    count(*) FILTER (isodow(ts) >= 6) / count(*) AS share_weekend
FROM past JOIN rhythm USING (user_id)
GROUP BY user_id
ORDER BY user_id
