-- For each day: raw rows, and the events, quarantined rows and duplicates that were made of them.
-- The raw rows are counted in raw_events itself, so a join that lost or multiplied rows shows.
WITH raw AS (
    SELECT day, count(*) AS rows FROM raw_events GROUP BY day
),
made AS (
    SELECT
        day,
        count(*) FILTER (reason IS NULL) AS events,
        count(*) FILTER (reason <> 'duplicate') AS quarantined,
        count(*) FILTER (reason = 'duplicate') AS duplicates
    FROM (SELECT day, NULL AS reason FROM made_events UNION ALL SELECT day, reason FROM made_quarantined)
    GROUP BY day
)
SELECT day, coalesce(rows, 0), coalesce(events, 0), coalesce(quarantined, 0), coalesce(duplicates, 0)
FROM raw FULL JOIN made USING (day)
ORDER BY day
