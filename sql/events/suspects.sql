-- suspects: the rows of users who did much on a day, or whose name matches. Counting is cheap and acquits nearly everyone; only
-- these are looked at closely.  Views: raw_events.  Placeholders are `cleaning.bots`; a limit that is NULL is off.
WITH busy AS (
    SELECT day, user_id
    FROM raw_events
    WHERE {{enabled}} AND user_id IS NOT NULL
    GROUP BY day, user_id
    HAVING count(*) > {{events_per_day}}
        OR count(*) > {{events_per_minute}}
        OR count(*) >= {{clockwork_events}}
        OR regexp_matches(user_id, {{user_pattern}})
)
SELECT * FROM raw_events SEMI JOIN busy USING (day, user_id)
