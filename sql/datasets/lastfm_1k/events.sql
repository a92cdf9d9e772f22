-- Last.fm plays with the artist as the item. Four artists in ten have no MusicBrainz id: their name identifies them.
SELECT
    user_id,
    coalesce(nullif(trim(artist_id), ''), artist_name) AS item_id,
    'play' AS event_type,
    "timestamp" AS ts,
    track_name AS text,
    source_file,
    source_row
FROM source_events
