-- Steps from one moment of a user to the next, counted per segment. A step's state is its event type or, in a log of
-- one type only, its category; what happened at one and the same moment is one step, in its most frequent state.
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
),
steps AS (
    SELECT user_id, ts, state
    FROM states
    QUALIFY row_number() OVER (PARTITION BY user_id, ts ORDER BY events DESC, state) = 1
),
moves AS (
    SELECT user_id, state AS from_state, lead(state) OVER (PARTITION BY user_id ORDER BY ts) AS to_state
    FROM steps
)
SELECT segment_id, from_state, to_state, count(*) AS steps, count(DISTINCT user_id) AS users
FROM moves
JOIN members USING (user_id)
WHERE to_state IS NOT NULL
GROUP BY segment_id, from_state, to_state
ORDER BY segment_id, from_state, to_state
