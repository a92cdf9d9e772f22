-- One row per user with an event before the week: engagement in natural units (days, sessions a week, minutes, value).
-- Views: events(user_id, item_id, event_type, ts, value, category), sessions(user_id, start, "end", events, value),
-- category_prices(category, mean_log_value) of the whole log.
-- Every window ends at {{week_start}}. A session that runs across that moment counts as started, and is cut there;
-- counts and values come from the single events, never from totals of such a session.
WITH past_events AS (
    SELECT user_id, item_id, category, CAST(value AS DOUBLE) AS value, CAST(ts AS TIMESTAMP) AS ts
    FROM events
    WHERE CAST(ts AS TIMESTAMP) < {{week_start}}
),
lifetimes AS (
    SELECT
        user_id,
        date_diff('second', max(ts), {{week_start}}) / 86400.0 AS recency_days,
        date_diff('second', min(ts), {{week_start}}) / 86400.0 AS tenure_days
    FROM past_events
    GROUP BY user_id
),
long_events AS (
    SELECT * FROM past_events WHERE ts >= {{week_start}} - to_days({{long_days}})
),
spending AS (
    SELECT
        user_id,
        count(*) AS events,
        sum(coalesce(value, 0)) AS value_total,
        count(*) FILTER (value > 0) / count(*) AS share_events_with_value,
        count(DISTINCT item_id) AS distinct_items,
        count(DISTINCT category) AS distinct_categories,
        1 - count(DISTINCT item_id) / greatest(count(item_id), 1) AS share_repeated_items,
        coalesce(entropy(category), 0) AS category_entropy_bits,
        -- How dear the user buys within each category: 0 is the average of the category, 0.1 about 10 % above it.
        coalesce(avg(ln(value) - mean_log_value) FILTER (value > 0), 0) AS price_level
    FROM long_events
    LEFT JOIN category_prices USING (category)
    GROUP BY user_id
),
long_sessions AS (
    SELECT
        user_id,
        CAST(start AS TIMESTAMP) AS start,
        least(CAST("end" AS TIMESTAMP), {{week_start}}) AS "end"
    FROM sessions
    WHERE CAST(start AS TIMESTAMP) < {{week_start}}
      AND CAST(start AS TIMESTAMP) >= {{week_start}} - to_days({{long_days}})
),
spaced AS (
    SELECT
        *,
        date_diff('second', lag(start) OVER (PARTITION BY user_id ORDER BY start), start) / 86400.0 AS gap_days
    FROM long_sessions
),
rhythm AS (
    SELECT
        user_id,
        count(*) AS sessions_long,
        count(*) FILTER (start >= {{week_start}} - to_days({{recent_days}})) AS sessions_recent,
        avg(date_diff('second', start, "end")) / 60.0 AS minutes_per_session,
        avg(gap_days) AS gap_days_mean,
        stddev_pop(gap_days) AS gap_days_std,
        count(*) FILTER (hour(start) < 6) / count(*) AS share_night,
        count(*) FILTER (hour(start) BETWEEN 6 AND 11) / count(*) AS share_morning,
        count(*) FILTER (hour(start) BETWEEN 12 AND 17) / count(*) AS share_afternoon,
        count(*) FILTER (hour(start) >= 18) / count(*) AS share_evening,
        count(*) FILTER (isodow(start) = 5) / count(*) AS share_friday,
        count(*) FILTER (isodow(start) >= 6) / count(*) AS share_weekend
    FROM spaced
    GROUP BY user_id
)
SELECT
    user_id,
    recency_days,
    tenure_days,
    -- A newcomer is measured over the days since the first event, at least a week, not over a window mostly before it.
    coalesce(sessions_recent, 0) * 7 / greatest(7, least({{recent_days}}, tenure_days)) AS sessions_per_week_recent,
    coalesce(sessions_long, 0) * 7 / greatest(7, least({{long_days}}, tenure_days)) AS sessions_per_week_long,
    coalesce(value_total, 0) AS value_total,
    coalesce(value_total / sessions_long, 0) AS value_per_session,
    coalesce(events / sessions_long, 0) AS events_per_session,
    coalesce(minutes_per_session, 0) AS minutes_per_session,
    coalesce(share_events_with_value, 0) AS share_events_with_value,
    -- With fewer than two sessions the gap is still open: its length so far is the best that is known.
    coalesce(gap_days_mean, recency_days) AS gap_days_mean,
    coalesce(gap_days_std, 0) AS gap_days_std,
    coalesce(share_night, 0) AS share_night,
    coalesce(share_morning, 0) AS share_morning,
    coalesce(share_afternoon, 0) AS share_afternoon,
    coalesce(share_evening, 0) AS share_evening,
    coalesce(share_friday, 0) AS share_friday,
    coalesce(share_weekend, 0) AS share_weekend,
    coalesce(distinct_items, 0) AS distinct_items,
    coalesce(distinct_categories, 0) AS distinct_categories,
    coalesce(share_repeated_items, 0) AS share_repeated_items,
    coalesce(category_entropy_bits, 0) AS category_entropy_bits,
    coalesce(price_level, 0) AS price_level
FROM lifetimes
LEFT JOIN spending USING (user_id)
LEFT JOIN rhythm USING (user_id)
ORDER BY user_id
