-- duplicates: the rows that tell of an event a second time. The earliest arrival is kept: files in the order of their names,
-- rows as they stand in the file.  Views: judged.
-- A row that is no event by itself does not make a later, sound one its duplicate.
WITH repeated AS (
    SELECT fingerprint FROM judged GROUP BY fingerprint HAVING count(*) > 1
),
alike AS (
    -- Only the few rows with a repeated fingerprint come through here; what follows is cheap.
    SELECT * FROM judged SEMI JOIN repeated USING (fingerprint)
)
SELECT day, user_id, source_file, source_row
FROM alike
WHERE flaw IS NULL
QUALIFY row_number() OVER (
    PARTITION BY
        day,
        event_id,
        CASE WHEN event_id IS NULL THEN (user_id, item_id, event_type, ts, value, quantity, session_id, text) END
    ORDER BY source_file, source_row
) > 1
