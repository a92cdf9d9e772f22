-- The sessions that were over when the week began; of one that was not, a part lies after the snapshot.
-- Views: sessions(user_id, session_id, start, "end", items, ...).
SELECT user_id, session_id, start, "end", items
FROM sessions
WHERE CAST("end" AS TIMESTAMP) < {{week_start}}
