-- Value of each member's events; 0 for a member without any.
-- Views: events(user_id, value, ...), members(user_id, segment_id).
SELECT user_id, coalesce(sum(CAST(value AS DOUBLE)), 0) AS value
FROM members
LEFT JOIN events USING (user_id)
GROUP BY user_id
ORDER BY user_id
