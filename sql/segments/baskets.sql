-- Which of the {{things}} most frequent categories (or items) were taken in each sampled session.
-- Views: sampled_sessions(segment_id, user_id, session_id, items), things(item_id, thing).
WITH taken AS (
    SELECT DISTINCT segment_id, user_id, session_id, thing
    FROM (SELECT segment_id, user_id, session_id, unnest(items) AS item_id FROM sampled_sessions)
    JOIN things USING (item_id)
),
frequent AS (
    SELECT thing FROM taken GROUP BY thing ORDER BY count(*) DESC, thing LIMIT {{things}}
)
SELECT segment_id, user_id, session_id, list(thing ORDER BY thing) AS things
FROM taken
SEMI JOIN frequent USING (thing)
GROUP BY segment_id, user_id, session_id
ORDER BY segment_id, user_id, session_id
