-- session_events: what sessions are made of, of the events from {{start}} to before {{end}}; NULL stands for no bound.
-- Views: events.  Of the users, only share {{share}} of {{shares}}.
-- Times are microseconds since the year 1: plain numbers that are never negative, so that division tells whole days.
WITH placed AS (
    SELECT *, CASE WHEN {{use_source_ids}} THEN session_id END AS source_session FROM events
)
SELECT
    user_id,
    source_session,
    item_id,
    event_type,
    epoch_us(ts) + 62_135_596_800_000_000 AS moment,
    coalesce(value, 0) AS value,
    weight,
    source_file,
    source_row
FROM placed
WHERE ({{end}} IS NULL OR ts < {{end}}::TIMESTAMPTZ)
    -- Before the start, only what an event after it can follow on: by a pause, or within a session of the source.
    AND ({{start}} IS NULL OR ts >= {{start}}::TIMESTAMPTZ - INTERVAL ({{half_day_us}}) MICROSECONDS)
    AND (
        {{start}} IS NULL
        OR source_session IS NOT NULL
        OR ts >= {{start}}::TIMESTAMPTZ - INTERVAL ({{gap_us}}) MICROSECONDS
    )
    AND ({{shares}} = 1 OR hash(user_id) % {{shares}} = {{share}})
