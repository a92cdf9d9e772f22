-- Last.fm artists, gathered from the plays. An id that is spelled in several ways takes the most frequent name.
SELECT
    coalesce(nullif(trim(artist_id), ''), artist_name) AS item_id,
    mode(artist_name) AS title,
    NULL::VARCHAR[] AS category,
    NULL::VARCHAR AS brand,
    NULL::DOUBLE AS price
FROM source_items
GROUP BY ALL
