-- alike: the few rows that may tell of one event, since their fingerprint repeats.  Views: raw_events.
WITH repeated AS (
    SELECT fingerprint(raw_events) AS mark FROM raw_events GROUP BY mark HAVING count(*) > 1
)
SELECT * FROM raw_events WHERE fingerprint(raw_events) IN (SELECT mark FROM repeated)
