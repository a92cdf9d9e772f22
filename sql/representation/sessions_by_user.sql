-- Sessions user by user, in one fixed order.
SELECT user_id, start, "end", events, value
FROM sessions
ORDER BY user_id, start, session_id
