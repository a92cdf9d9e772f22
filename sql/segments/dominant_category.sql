-- The category of most of a user's events, the first by name of equals. Users without a category are left out.
-- Views: events(user_id, category, ...), members(user_id, row).
SELECT row, category
FROM events
JOIN members USING (user_id)
WHERE category IS NOT NULL
GROUP BY row, category
QUALIFY row_number() OVER (PARTITION BY row ORDER BY count(*) DESC, category) = 1
ORDER BY row
