-- In which states the sessions of each segment begin and end.
-- Views: sampled_sessions(segment_id, user_id, session_id, start, "end"), steps(segment_id, user_id, ts, state).
WITH ends AS (
    SELECT 'entry' AS side, segment_id, user_id, start AS ts FROM sampled_sessions
    UNION ALL
    SELECT 'exit' AS side, segment_id, user_id, "end" AS ts FROM sampled_sessions
)
SELECT side, segment_id, state, count(*) AS sessions, count(DISTINCT user_id) AS users
FROM ends
JOIN steps USING (segment_id, user_id, ts)
GROUP BY side, segment_id, state
ORDER BY side, segment_id, state
