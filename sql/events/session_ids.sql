-- session_ids: the source's own id, or who started a session and when.  Views: started, one row a session, in microseconds since
-- the year 1.
SELECT
    coalesce(
        source_session,
        user_id || '@' || strftime(make_timestamp(first_moment - 62_135_596_800_000_000), '%Y%m%dT%H%M%S.%f')
    ) AS session_id
FROM started
