-- flaw(raw): the first reason for which a raw row is no event whatever other rows hold; NULL for none.
-- {{default_type}} stands in for a missing event type.
CASE
    WHEN raw.unparsed IS NOT NULL THEN 'unreadable_field'
    WHEN raw.user_id IS NULL THEN 'missing_user'
    WHEN raw.ts IS NULL THEN 'missing_time'
    -- A row that is dated outside the calendar was put on another day than its own.
    WHEN make_timestamp(epoch_us(raw.ts))::DATE <> raw.day THEN 'outside_calendar'
    -- Sums of such numbers would swallow all others.
    WHEN abs(raw.value) > 1e15 OR abs(raw.quantity) > 1e15 THEN 'absurd_number'
    WHEN coalesce(raw.event_type, {{default_type}}) IS NULL THEN 'missing_type'
END
