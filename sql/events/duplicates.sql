-- duplicates: the rows that tell of an event a second time. The earliest arrival is kept: files in the order of their names,
-- rows as they stand in the file.  Views: judged.
-- A row that is no event by itself does not make a later, sound one its duplicate.
WITH repeated AS (
    SELECT fingerprint FROM judged WHERE flaw IS NULL GROUP BY fingerprint HAVING count(*) > 1
)
SELECT day, user_id, source_file, source_row
FROM judged
WHERE flaw IS NULL AND fingerprint IN (SELECT fingerprint FROM repeated)
-- Only repeated fingerprints come here, so this sorts a few rows and not the log.
QUALIFY row_number() OVER (
    PARTITION BY
        day,
        event_id,
        CASE WHEN event_id IS NULL THEN (user_id, item_id, event_type, ts, value, quantity, session_id, text) END
    ORDER BY source_file, source_row
) > 1
