-- duplicates: the rows that tell of an event a second time. The earliest arrival is kept: files in the order of their names,
-- rows as they stand in the file.  Views: alike.
-- A row that is no event by itself does not make a later, sound one its duplicate.
SELECT day, user_id, source_file, source_row
FROM alike
WHERE flaw(alike) IS NULL
QUALIFY row_number() OVER (
    PARTITION BY
        day,
        event_id,
        CASE WHEN event_id IS NULL THEN (user_id, item_id, event_type, ts, value, quantity, session_id, text) END
    ORDER BY source_file, source_row
) > 1
