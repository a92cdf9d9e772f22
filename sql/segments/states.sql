-- How often, and by how many members, each state was taken in each segment.
-- Views: steps(segment_id, user_id, ts, state).
SELECT segment_id, state, count(*) AS moments, count(DISTINCT user_id) AS users
FROM steps
GROUP BY segment_id, state
ORDER BY segment_id, state
