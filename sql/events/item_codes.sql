-- item_codes: a small number for each item that the events name, from 1; 0 is no item.  Views: events, items.
SELECT item_id, title, row_number() OVER (ORDER BY item_id) AS code
FROM (SELECT DISTINCT item_id FROM events WHERE item_id IS NOT NULL)
LEFT JOIN items USING (item_id)
