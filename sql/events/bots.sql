-- bots: users that acted like a machine on a day, with the reason.  Views: suspects, duplicates.
-- Placeholders are `cleaning.bots`; a limit that is NULL is off.
WITH theirs AS (
    -- A delivery that is repeated does not make a bot of a person.
    SELECT day, user_id, epoch_us(ts) AS moment
    FROM suspects
    ANTI JOIN duplicates USING (source_file, source_row)
    WHERE flaw(suspects) IS NULL
),
daily AS (
    SELECT day, user_id, count(*) AS events FROM theirs GROUP BY day, user_id
),
busiest AS (
    -- The lines of a basket share one moment: it is moments that no hand can make so many of.
    SELECT day, user_id, max(moments) AS moments
    FROM (
        SELECT day, user_id, count(DISTINCT moment) AS moments
        FROM theirs
        GROUP BY day, user_id, moment // 60_000_000
    )
    GROUP BY day, user_id
),
pauses AS (
    SELECT day, user_id, round((moment - previous) / 1e6) AS seconds, count(*) AS times
    FROM (SELECT *, lag(moment) OVER (PARTITION BY day, user_id ORDER BY moment) AS previous FROM theirs)
    WHERE moment > previous
    GROUP BY ALL
),
rhythm AS (
    SELECT day, user_id, max(times) / sum(times) AS share_of_commonest, sum(times) AS pauses
    FROM pauses
    GROUP BY day, user_id
)
SELECT
    day,
    user_id,
    CASE
        WHEN events > {{events_per_day}} OR moments > {{events_per_minute}} THEN 'bot_rate'
        WHEN regexp_matches(user_id, {{user_pattern}}) THEN 'bot_pattern'
        WHEN pauses + 1 >= {{clockwork_events}} AND share_of_commonest >= {{clockwork_share}} THEN 'bot_pattern'
    END AS reason
FROM daily
JOIN busiest USING (day, user_id)
LEFT JOIN rhythm USING (day, user_id)
WHERE reason IS NOT NULL
