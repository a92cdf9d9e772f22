-- Steps from one moment of a user to the next, counted per segment.
-- Views: steps(segment_id, user_id, ts, state).
WITH moves AS (
    SELECT
        segment_id,
        user_id,
        state AS from_state,
        lead(state) OVER (PARTITION BY user_id ORDER BY ts) AS to_state
    FROM steps
)
SELECT segment_id, from_state, to_state, count(*) AS steps, count(DISTINCT user_id) AS users
FROM moves
WHERE to_state IS NOT NULL
GROUP BY segment_id, from_state, to_state
ORDER BY segment_id, from_state, to_state
