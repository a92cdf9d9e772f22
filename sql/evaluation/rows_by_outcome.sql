-- What became of the raw rows of the history window: one row an outcome.
SELECT 'raw' AS outcome, count(*) AS rows FROM raw_events
UNION ALL
SELECT 'events', count(*) FROM events
UNION ALL
SELECT reason, count(*) FROM quarantined_events GROUP BY reason
ORDER BY ALL
