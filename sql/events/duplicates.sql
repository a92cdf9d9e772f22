-- duplicates: the rows that tell of an event a second time. The earliest arrival is kept: files in the order of their names,
-- rows as they stand in the file.  Views: alike.
WITH sound AS (
    -- A row that is no event by itself does not make a later, sound one its duplicate.
    SELECT * FROM alike WHERE flaw(alike) IS NULL
)
SELECT day, user_id, source_file, source_row
FROM sound
WHERE event_id IS NOT NULL
QUALIFY row_number() OVER (PARTITION BY day, event_id ORDER BY source_file, source_row) > 1
UNION ALL
-- Without an id of the source, an event is who did what, when, and for how much.
SELECT day, user_id, source_file, source_row
FROM sound
WHERE event_id IS NULL
QUALIFY row_number() OVER (
    PARTITION BY day, user_id, item_id, event_type, ts, value, quantity, session_id, text
    ORDER BY source_file, source_row
) > 1
