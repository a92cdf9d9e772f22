-- For each day, digests of the two edges that the sessions of its neighbours can see.  Views: made_events.
-- `tail`: who was active so late that a session may go on over midnight, and when last.
-- `head`: what those did until noon who were active so early that a session may have come over midnight.
WITH placed AS (
    SELECT
        day,
        user_id,
        CASE WHEN {{use_source_ids}} THEN session_id END AS source_session,
        hash(event_id, item_id, event_type, value, weight, source_file, source_row) AS what,
        epoch_us(ts) AS moment,
        epoch_us(day::TIMESTAMP) AS midnight,
        CASE WHEN {{use_source_ids}} AND session_id IS NOT NULL THEN 43_200_000_000 ELSE {{gap_us}} END AS reach
    FROM made_events
),
late AS (
    SELECT day, user_id, source_session, max(moment) AS moment
    FROM placed
    WHERE moment >= midnight + 86_400_000_000 - reach
    GROUP BY ALL
),
early AS (
    SELECT *
    FROM placed
    SEMI JOIN (SELECT DISTINCT day, user_id FROM placed WHERE moment < midnight + reach) USING (day, user_id)
    WHERE moment < midnight + 43_200_000_000
),
tails AS (
    SELECT day, md5(sum(hash(user_id, source_session, moment)::HUGEINT)::VARCHAR) AS tail FROM late GROUP BY day
),
heads AS (
    SELECT day, md5(sum(hash(user_id, source_session, moment, what)::HUGEINT)::VARCHAR) AS head FROM early GROUP BY day
)
SELECT day, coalesce(tail, 'none'), coalesce(head, 'none')
FROM (SELECT DISTINCT day FROM placed)
LEFT JOIN tails USING (day)
LEFT JOIN heads USING (day)
ORDER BY day
