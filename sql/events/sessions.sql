-- sessions that start on a day in [{{first}}, {{last}}).
-- Views: events, holding the days from one before {{first}} to one after {{last}}; items.
-- A session may reach into the next day and belongs to the day on which it starts. One that came over midnight is cut at
-- noon, so that a user who never pauses is seen the same whether days are computed one by one or all at once: the days
-- next to a day are enough to tell its sessions. The source's sessions also end with twelve idle hours over midnight.
WITH ordered AS (
    SELECT
        user_id,
        CASE WHEN {{use_source_ids}} THEN session_id END AS source_session,
        epoch_us(ts) AS moment,
        item_id,
        event_type,
        coalesce(value, 0) AS value,
        -- Equal timestamps are ordered by where they stand in the source: always the same order.
        row_number() OVER (ORDER BY user_id, ts, source_file, source_row) AS position
    FROM events
),
gaps AS (
    SELECT *, lag(moment) OVER (PARTITION BY user_id, source_session ORDER BY position) AS previous
    FROM ordered
),
linked AS (
    SELECT
        *,
        CASE
            WHEN moment - previous <= {{gap_us}} THEN 0
            WHEN source_session IS NOT NULL
                AND (moment - previous <= 43_200_000_000 OR moment // 86_400_000_000 = previous // 86_400_000_000)
            THEN 0
            ELSE 1
        END AS starts
    FROM gaps
),
chained AS (
    SELECT *, sum(starts) OVER (PARTITION BY user_id, source_session ORDER BY position) AS chain
    FROM linked
),
numbered AS (
    SELECT
        *,
        -- The day that the event's session starts on: the chain's first, and a new one from each noon after a midnight.
        greatest(
            min(moment) OVER (PARTITION BY user_id, source_session, chain) // 86_400_000_000,
            (moment - 43_200_000_000) // 86_400_000_000
        ) AS start_day
    FROM chained
),
grouped AS (
    SELECT
        user_id,
        source_session,
        min(moment) AS first_moment,
        max(moment) AS last_moment,
        count(*)::INTEGER AS events,
        count(DISTINCT item_id)::INTEGER AS distinct_items,
        sum(value ORDER BY position) AS value,
        list(item_id ORDER BY position) FILTER (item_id IS NOT NULL) AS items,
        list(event_type ORDER BY position) AS event_types
    FROM numbered
    GROUP BY user_id, source_session, chain, start_day
),
starting AS (
    SELECT *, make_timestamptz(first_moment) AS start
    FROM grouped
    WHERE make_timestamptz(first_moment) >= {{first}}::TIMESTAMPTZ
      AND make_timestamptz(first_moment) < {{last}}::TIMESTAMPTZ
),
-- Titles in the order in which items first appear.
titles AS (
    SELECT user_id, first_moment, source_session, string_agg(title, '; ' ORDER BY position) AS text
    FROM (
        SELECT starting.user_id, starting.first_moment, starting.source_session, item_id, min(position) AS position
        FROM starting, unnest(items) WITH ORDINALITY AS each(item_id, position)
        GROUP BY ALL
    )
    JOIN items USING (item_id)
    GROUP BY user_id, first_moment, source_session
)
SELECT
    start::DATE AS day,
    coalesce(s.source_session, s.user_id || '@' || strftime(start, '%Y%m%dT%H%M%S.%f')) AS session_id,
    s.user_id,
    start,
    make_timestamptz(last_moment) AS "end",
    events,
    distinct_items,
    value,
    coalesce(items, []) AS items,
    event_types,
    text
FROM starting AS s
LEFT JOIN titles
    ON titles.user_id = s.user_id
   AND titles.first_moment = s.first_moment
   AND titles.source_session IS NOT DISTINCT FROM s.source_session
