-- user_days: what each user did on each day, as sums.  Views: events, sessions, items.
WITH acted AS (
    SELECT
        day,
        user_id,
        count(*) AS events,
        -- Sums of fractions depend on the order: sorted lists are always summed the same way.
        list_sum(list_sort(list(coalesce(value, 0)))) AS value,
        list_sum(list_sort(list(coalesce(quantity, 0)))) AS quantity,
        list_sum(list_sort(list(weight))) AS weight,
        count(DISTINCT item_id) AS distinct_items,
        count(DISTINCT category[1]) AS distinct_categories,
        histogram(event_type) AS type_counts,
        list(((epoch_us(ts) - epoch_us(day::TIMESTAMP)) // 3_600_000_000)::UTINYINT) AS hours,
        min(ts) AS first,
        max(ts) AS last
    FROM events
    LEFT JOIN items USING (item_id)
    GROUP BY day, user_id
),
visited AS (
    SELECT day, user_id, count(*) AS sessions, list_sum(list_sort(list(duration))) AS seconds
    FROM sessions
    GROUP BY day, user_id
)
SELECT
    acted.* EXCLUDE (hours),
    [len(list_filter(hours, lambda hour: hour = of_day)) FOR of_day IN range(24)] AS hour_counts,
    coalesce(visited.sessions, 0) AS sessions,
    coalesce(visited.seconds, 0) AS seconds
FROM acted
LEFT JOIN visited USING (day, user_id)
