-- MovieLens ratings. Stars become the event's type: they say what a user thought, not what it was worth in money.
-- Four stars and up is what recommenders on this log usually take for liking.
SELECT
    userId AS user_id,
    movieId AS item_id,
    CASE
        WHEN TRY_CAST(rating AS DOUBLE) >= 4 THEN 'like'
        WHEN TRY_CAST(rating AS DOUBLE) <= 2 THEN 'dislike'
        ELSE 'rating'
    END AS event_type,
    "timestamp" AS ts,
    source_file,
    source_row
FROM source_events
