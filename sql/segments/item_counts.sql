-- How often each user took each of the items that most users took; an item of a single user links nobody.
-- Views: events(user_id, item_id, ...), members(user_id, row).
WITH taken AS (
    SELECT row, item_id, count(*) AS events
    FROM events
    JOIN members USING (user_id)
    WHERE item_id IS NOT NULL
    GROUP BY row, item_id
),
widespread AS (
    SELECT item_id
    FROM taken
    GROUP BY item_id
    HAVING count(*) > 1
    ORDER BY count(*) DESC, item_id
    LIMIT {{most_items}}
)
SELECT row, item_id, events
FROM taken
SEMI JOIN widespread USING (item_id)
ORDER BY row, item_id
