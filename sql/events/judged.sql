-- judged: each raw row with its flaw, the first reason for which it is no event whatever other rows hold.
-- Views: raw_events.  {{default_type}} stands in for a missing event type.
SELECT
    *,
    CASE
        WHEN unparsed IS NOT NULL THEN 'unreadable_field'
        WHEN user_id IS NULL THEN 'missing_user'
        WHEN ts IS NULL THEN 'missing_time'
        -- A row that is dated outside the calendar was put on another day than its own.
        WHEN make_timestamp(epoch_us(ts))::DATE <> day THEN 'outside_calendar'
        -- Sums of such numbers would swallow all others.
        WHEN abs(value) > 1e15 OR abs(quantity) > 1e15 THEN 'absurd_number'
        WHEN coalesce(event_type, {{default_type}}) IS NULL THEN 'missing_type'
    END AS flaw,
    -- Rows of one event have the same fingerprint; the few whose fingerprint repeats are compared in full. Without an id
    -- of the source, what identifies an event is who did what, when, and for how much.
    CASE
        WHEN event_id IS NOT NULL THEN hash(day, event_id)
        ELSE hash(day, user_id, item_id, event_type, ts, value, quantity, session_id, text)
    END AS fingerprint
FROM raw_events
