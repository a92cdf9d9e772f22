-- user_codes: a small number for each user, in alphabetical order.  Views: events.
SELECT user_id, row_number() OVER (ORDER BY user_id) AS code
FROM (SELECT DISTINCT user_id FROM events)
