-- Events in the one fixed order. Equal timestamps are ordered by where they stand in the source: an unstable order
-- would change what counts as the next item.
SELECT user_id, item_id, event_type, ts, value
FROM events
ORDER BY user_id, ts, source_file, source_row
