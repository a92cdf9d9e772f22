-- Engagement of each user in the {{days}} days before {{as_of}}, of days added up.  Views: user_days.
WITH span AS (
    SELECT * FROM user_days WHERE day < {{as_of}} AND day >= {{as_of}} - {{days}}
)
SELECT
    user_id,
    {{as_of}} - max(day) AS recency_days,
    count(*) AS active_days,
    sum(sessions)::BIGINT AS sessions,
    sum(events)::BIGINT AS events,
    sum(value) AS value,
    sum(seconds) AS seconds,
    -- Shares of events in the 24 hours and of active days on the seven weekdays, from Monday.
    list_transform(range(1, 25), lambda hour: list_sum(list_extract(list(hour_counts), hour)) / sum(events)) AS hour_shares,
    [count(*) FILTER (isodow(day) = 1) / count(*), count(*) FILTER (isodow(day) = 2) / count(*),
     count(*) FILTER (isodow(day) = 3) / count(*), count(*) FILTER (isodow(day) = 4) / count(*),
     count(*) FILTER (isodow(day) = 5) / count(*), count(*) FILTER (isodow(day) = 6) / count(*),
     count(*) FILTER (isodow(day) = 7) / count(*)] AS weekday_shares,
    avg(distinct_items) AS items_a_day,
    avg(distinct_categories) AS categories_a_day
FROM span
GROUP BY user_id
