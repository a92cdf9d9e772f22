-- At most {{sessions}} sessions of each segment, picked by a hash: the same ones whatever the order of rows.
-- Views: sessions(user_id, session_id, start, "end", items), members(user_id, segment_id).
SELECT segment_id, user_id, session_id, start, "end", items
FROM sessions
JOIN members USING (user_id)
QUALIFY row_number() OVER (
    PARTITION BY segment_id ORDER BY md5(concat_ws('/', {{seed}}, user_id, session_id)), user_id, session_id
) <= {{sessions}}
