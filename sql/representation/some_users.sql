-- All events of a share of the users, picked by a hash of their ids: the same users whatever the order of rows.
-- View: log, the events of everybody. A hash is below {{below}} of the 2^64 that there are.
SELECT * FROM log WHERE md5_number_lower(concat_ws('/', {{seed}}, user_id)) < {{below}}
