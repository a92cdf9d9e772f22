-- The history of the segments without their members.
-- Views: segment_ledger.
SELECT * EXCLUDE (members, centre)
FROM segment_ledger
ORDER BY week, segment_id
