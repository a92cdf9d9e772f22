-- rejected: the raw rows that are no events, each with its reason. They are few; what are events is all else.
-- Views: refused, suspects, bots, alike, duplicates.
-- That a row repeats another says more than what is wrong with both, and what is wrong with a row more than who sent it.
SELECT * FROM refused ANTI JOIN duplicates USING (source_file, source_row)
UNION ALL
SELECT suspects.*, bots.reason
FROM suspects
JOIN bots USING (day, user_id)
ANTI JOIN duplicates USING (source_file, source_row)
ANTI JOIN refused USING (source_file, source_row)
UNION ALL
SELECT alike.*, 'duplicate' FROM alike SEMI JOIN duplicates USING (source_file, source_row)
