-- items: one row an item, with the text that the language model reads.
-- Reads the view prepared_items(item_id, title, category, brand, price), in which an item may stand more than once:
-- the most frequent spelling wins, ties go to the first in alphabetical order.
WITH spellings AS (
    SELECT item_id, title, category, brand, median(price) AS price, count(*) AS times
    FROM prepared_items
    WHERE item_id IS NOT NULL
    GROUP BY item_id, title, category, brand
),
chosen AS (
    SELECT *
    FROM spellings
    QUALIFY row_number() OVER (
        PARTITION BY item_id
        ORDER BY times DESC, title NULLS LAST, array_to_string(category, ' > '), brand NULLS LAST
    ) = 1
),
composed AS (
    SELECT
        item_id,
        coalesce(title, item_id) AS title,
        coalesce(category, []) AS category,
        brand,
        price,
        lower(concat_ws(' > ', nullif(array_to_string(category, ' > '), ''), concat_ws(' ', brand, coalesce(title, item_id)))) AS text
    FROM chosen
)
SELECT *, sha256(text) AS text_hash
FROM composed
