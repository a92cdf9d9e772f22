-- Events with the widest category of their item, in the one fixed order.
SELECT events.user_id, events.item_id, event_type, ts, coalesce(value, 0) AS value, items.category[1] AS category
FROM events LEFT JOIN items USING (item_id)
ORDER BY events.user_id, ts, source_file, source_row
