-- What each member did at each moment, as one state: the event type or, in a log of one type only, the category; of
-- what happened at one and the same moment, the most frequent.
-- Views: events(user_id, event_type, category, ts, ...), members(user_id, segment_id).
WITH kind AS (
    SELECT count(DISTINCT event_type) > 1 AS has_types FROM events SEMI JOIN members USING (user_id)
),
states AS (
    SELECT user_id, ts, CASE WHEN has_types THEN event_type ELSE category END AS state, count(*) AS events
    FROM events
    SEMI JOIN members USING (user_id)
    CROSS JOIN kind
    WHERE state IS NOT NULL
    GROUP BY ALL
)
SELECT segment_id, user_id, ts, state
FROM states
JOIN members USING (user_id)
QUALIFY row_number() OVER (PARTITION BY user_id, ts ORDER BY events DESC, state) = 1
