-- The latest {{steps}} steps of at most {{users}} members, picked by a hash, in order.
-- Views: steps(segment_id, user_id, ts, state).
WITH picked AS (
    SELECT user_id
    FROM (SELECT DISTINCT user_id FROM steps)
    ORDER BY md5(concat_ws('/', {{seed}}, user_id)), user_id
    LIMIT {{users}}
)
SELECT segment_id, user_id, state
FROM steps
SEMI JOIN picked USING (user_id)
QUALIFY row_number() OVER (PARTITION BY user_id ORDER BY ts DESC) <= {{steps}}
ORDER BY user_id, ts
