-- Engagement of each user in the {{days}} days before {{as_of}}, of days added up.  Views: user_days.
WITH gathered AS (
    SELECT
        user_id,
        {{as_of}} - max(day) AS recency_days,
        count(*) AS active_days,
        sum(sessions)::BIGINT AS sessions,
        sum(events)::BIGINT AS events,
        -- Sums of fractions depend on the order: sorted lists are always summed the same way.
        list_sum(list_sort(list(value))) AS value,
        list_sum(list_sort(list(seconds))) AS seconds,
        list(hour_counts) AS days,
        list(isodow(day)) AS weekdays,
        avg(distinct_items) AS items_a_day,
        avg(distinct_categories) AS categories_a_day
    FROM user_days
    WHERE day < {{as_of}} AND day >= {{as_of}} - {{days}}
    GROUP BY user_id
)
SELECT
    * EXCLUDE (days, weekdays),
    -- Shares of events in the 24 hours (UTC), and of active days on the seven weekdays from Monday.
    [list_sum([counts[hour] FOR counts IN days]) / events FOR hour IN range(1, 25)] AS hour_shares,
    [len(list_filter(weekdays, lambda one: one = weekday)) / active_days FOR weekday IN range(1, 8)] AS weekday_shares
FROM gathered
