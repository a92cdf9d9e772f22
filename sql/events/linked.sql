-- linked: the ordered events, numbered by session. One pass in order, looking at the row before: windows that are neither
-- partitioned nor sorted stream.  Views: ordered.
-- A pause longer than {{gap_us}} ends a session. The source's own session ends with the source's id, or with twelve idle hours over
-- midnight. A session that came over midnight is cut at noon, so that a user who never pauses is seen the same whether days
-- are computed one by one or all at once: the days next to a day are enough to tell its sessions.
WITH paused AS (
    SELECT
        *,
        rowid AS position,
        moment - lag(moment) OVER () AS pause,
        moment // 86_400_000_000 AS day,
        lag(moment) OVER () // 86_400_000_000 AS previous_day,
        lag(who) OVER () IS DISTINCT FROM who
            OR lag(source_session) OVER () IS DISTINCT FROM source_session AS other
    FROM ordered
),
chained AS (
    SELECT
        *,
        other OR NOT (
            pause <= {{gap_us}}
            OR (source_session IS NOT NULL AND (pause <= 43_200_000_000 OR day = previous_day))
        ) AS starts
    FROM paused
),
dated AS (
    SELECT
        *,
        -- The day that the event's session starts on: the chain's first, and a new one from each noon after a midnight.
        -- Positions grow, so the greatest so far is the chain's own start, and the low bits carry its day.
        greatest(
            max(CASE WHEN starts THEN (position << 24) | day END) OVER (ROWS UNBOUNDED PRECEDING) & 16_777_215,
            (moment - 43_200_000_000) // 86_400_000_000
        ) AS start_day
    FROM chained
)
SELECT
    who,
    source_session,
    moment,
    value,
    weight,
    (position << 32) | what AS packed,
    sum(CASE WHEN starts OR start_day <> lag_day THEN 1 ELSE 0 END) OVER (ROWS UNBOUNDED PRECEDING)::INTEGER AS session
FROM (SELECT *, lag(start_day) OVER () AS lag_day FROM dated)
