-- fingerprint(raw): a number that the rows of one event share. Without an id of the source, what identifies an event is who did
-- what, when, and for how much.
CASE
    WHEN raw.event_id IS NOT NULL THEN hash(raw.day, raw.event_id)
    ELSE hash(raw.day, raw.user_id, raw.item_id, raw.event_type, raw.ts, raw.value, raw.quantity, raw.session_id, raw.text)
END
