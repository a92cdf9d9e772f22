-- What is usually paid in a category: the mean logarithm of the values in the long window.
-- View: events(ts, value, category). Summed as whole billionths: sums of floats depend on their order, those of integers do not.
SELECT category, sum(CAST(round(ln(value) * 1e9) AS BIGINT)) / (1e9 * count(*)) AS mean_log_value
FROM (SELECT category, CAST(value AS DOUBLE) AS value, CAST(ts AS TIMESTAMP) AS ts FROM events)
WHERE ts < {{week_start}} AND ts >= {{week_start}} - to_days({{long_days}}) AND value > 0
GROUP BY category
ORDER BY category
