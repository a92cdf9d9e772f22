-- ordered: the events that sessions of the days from {{first_us}} to {{last_us}} are made of, in the order of users and time, narrow.
-- Views: events, holding these days and one more on both sides; user_codes, item_codes, type_codes, file_codes.
-- Strings are slow to sort and to gather: all become small numbers here and are spelled out again at the very end.
-- Times are microseconds since the year 1: plain numbers that are never negative, so that division tells whole days.
WITH placed AS (
    SELECT
        *,
        epoch_us(ts) + 62_135_596_800_000_000 AS moment,
        CASE WHEN {{use_source_ids}} THEN session_id END AS source_session,
        CASE WHEN {{use_source_ids}} AND session_id IS NOT NULL THEN 43_200_000_000 ELSE {{gap_us}} END AS reach
    FROM events
),
followed AS (
    SELECT DISTINCT user_id FROM placed WHERE moment >= {{last_us}} - reach AND moment < {{last_us}}
),
reaching AS (
    -- Of the day before, only what the first day can follow on.
    SELECT * FROM placed WHERE moment >= {{first_us}} - reach AND moment < {{last_us}}
    UNION ALL
    -- Of the day after, only what can follow on the last day.
    SELECT * FROM placed SEMI JOIN followed USING (user_id)
    WHERE moment >= {{last_us}} AND moment < {{last_us}} + 43_200_000_000
)
SELECT
    user_codes.code AS who,
    source_session,
    moment,
    coalesce(value, 0) AS value,
    weight,
    (coalesce(item_codes.code, 0) << 8) | type_codes.code AS what,
    (file_codes.code << 40) | source_row AS place
FROM reaching
JOIN user_codes USING (user_id)
JOIN file_codes USING (source_file)
LEFT JOIN item_codes USING (item_id)
JOIN type_codes USING (event_type)
-- Equal timestamps are ordered by where they stand in the source: always the same order.
ORDER BY who, source_session, moment, place
