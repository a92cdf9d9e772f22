-- MovieLens films with their genres as the category. Genres stand side by side, not one inside another; the first is the one
-- that groups films.
SELECT
    movieId AS item_id,
    title,
    CASE WHEN genres NOT LIKE '(no genres%' THEN string_split(genres, '|') END AS category,
    NULL::VARCHAR AS brand,
    NULL::DOUBLE AS price
FROM source_items
