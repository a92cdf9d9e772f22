-- ordered: the events that sessions of days in [{{first}}, {{last}}) are made of, in the order of users and time, narrow.
-- Views: events, holding the days from one before {{first}} to one after {{last}}; item_codes, type_codes.
-- Strings are slow to gather: items and types become small numbers here and are spelled out again at the very end.
WITH reaching AS (
    -- Of the day before, only what the next day can follow on; of the day after, only what can follow on the last day.
    SELECT
        user_id,
        CASE WHEN {{use_source_ids}} THEN session_id END AS source_session,
        ts,
        item_id,
        event_type,
        coalesce(value, 0) AS value,
        weight,
        source_file,
        source_row,
        CASE WHEN {{use_source_ids}} AND session_id IS NOT NULL THEN 43_200_000_000 ELSE {{gap_us}} END AS reach
    FROM events
    WHERE ts >= {{first}}::TIMESTAMPTZ - to_microseconds(reach)
      AND ts < {{last}}::TIMESTAMPTZ + INTERVAL 12 HOURS
),
followed AS (
    SELECT DISTINCT user_id
    FROM reaching
    WHERE ts >= {{last}}::TIMESTAMPTZ - to_microseconds(reach) AND ts < {{last}}::TIMESTAMPTZ
)
SELECT
    user_id,
    source_session,
    -- Microseconds since the year 1: never negative, so that whole days can be told by division.
    epoch_us(ts) + 62_135_596_800_000_000 AS moment,
    value,
    weight,
    (coalesce(item_codes.code, 0) << 8) | type_codes.code AS what
FROM reaching
LEFT JOIN item_codes USING (item_id)
JOIN type_codes USING (event_type)
WHERE ts < {{last}}::TIMESTAMPTZ OR user_id IN (SELECT user_id FROM followed)
-- Equal timestamps are ordered by where they stand in the source: always the same order.
ORDER BY user_id, source_session, ts, source_file, source_row
