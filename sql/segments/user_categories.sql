-- What each member spent in each top-level category (or how many events, where the log carries no values).
-- Views: events(user_id, category, value, ...), members(user_id, segment_id).
WITH kept AS (
    SELECT user_id, category, greatest(coalesce(CAST(value AS DOUBLE), 0), 0) AS value
    FROM events
    SEMI JOIN members USING (user_id)
    WHERE category IS NOT NULL
),
unit AS (
    SELECT coalesce(sum(value), 0) > 0 AS has_value FROM kept
)
SELECT user_id, category, sum(CASE WHEN has_value THEN value ELSE 1 END) AS amount
FROM kept, unit
GROUP BY user_id, category
HAVING amount > 0
ORDER BY user_id, category
