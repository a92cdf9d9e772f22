-- How often, and by how many members, each item was taken in each segment.
-- Views: events(user_id, item_id, ...), members(user_id, segment_id).
SELECT segment_id, item_id, count(*) AS events, count(DISTINCT user_id) AS users
FROM events
JOIN members USING (user_id)
WHERE item_id IS NOT NULL
GROUP BY segment_id, item_id
ORDER BY segment_id, item_id
