-- All that the ledger holds, by week and segment. Members, which are most of it, only of {{week}} and of the latest week
-- before it: no other week is matched.
-- Views: recorded (as segment_ledger).
SELECT * REPLACE (
    CASE
        WHEN week = {{week}} OR week = (SELECT max(week) FROM recorded WHERE week < {{week}}) THEN members
        ELSE []
    END AS members
)
FROM recorded
ORDER BY week, segment_id
