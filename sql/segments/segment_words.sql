-- How often, and by how many members, each word of the items' texts was met in each segment. A word counts once an item.
-- Views: events(user_id, item_id, ...), members(user_id, segment_id), items(item_id, text, ...).
WITH words AS (
    -- Letters of any script; shorter pieces are units and abbreviations.
    SELECT item_id, unnest(list_distinct(regexp_extract_all(lower(text), '\p{L}{3,}'))) AS word FROM items
),
taken AS (
    SELECT segment_id, user_id, item_id, count(*) AS events
    FROM events
    JOIN members USING (user_id)
    WHERE item_id IS NOT NULL
    GROUP BY segment_id, user_id, item_id
)
SELECT segment_id, word, sum(events) AS events, count(DISTINCT user_id) AS users
FROM taken
JOIN words USING (item_id)
GROUP BY segment_id, word
ORDER BY segment_id, word
