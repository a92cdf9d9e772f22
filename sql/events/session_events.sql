-- session_events: what sessions are made of, of the events from {{start}} to before {{end}}; NULL stands for no bound.
-- Views: events.
-- Times are microseconds since the year 1: plain numbers that are never negative, so that division tells whole days.
SELECT
    user_id,
    CASE WHEN {{use_source_ids}} THEN session_id END AS source_session,
    item_id,
    event_type,
    epoch_us(ts) + 62_135_596_800_000_000 AS moment,
    coalesce(value, 0) AS value,
    weight,
    source_file,
    source_row
FROM events
WHERE ts >= coalesce({{start}}, '-infinity')::TIMESTAMPTZ AND ts < coalesce({{end}}, 'infinity')::TIMESTAMPTZ
