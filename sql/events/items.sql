-- items: one row an item, with the text that the language model reads.
-- Reads the view prepared_items(item_id, title, category, brand, price), in which an item may stand more than once:
-- the most frequent spelling wins, ties go to the first in alphabetical order. The macro cleaned(words) tidies a field up.
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
named AS (
    SELECT item_id, coalesce(title, item_id) AS title, coalesce(category, []) AS category, brand, price
    FROM chosen
),
spelled AS (
    SELECT
        *,
        MAP {
            'item_id': item_id,
            'title': cleaned(title),
            'category': nullif(array_to_string(list_transform(category, lambda part: cleaned(part)), ' > '), ''),
            'brand': cleaned(brand),
            'price': regexp_replace(printf('%.2f', price), '\.00$', '')
        } AS fields
    FROM named
),
-- The template's fields that are not empty, each with what stands behind it in the template.
filled AS (
    SELECT
        *,
        list_filter(
            list_transform(
                {{fields}},
                lambda name, place: {
                    'word': list_extract({{opening}}, place) || fields[name] || list_extract({{closing}}, place),
                    'after': list_extract({{between}}, place),
                    'last': place = len({{fields}})
                }
            ),
            lambda part: part.word IS NOT NULL
        ) AS parts
    FROM spelled
),
-- Behind the last of them nothing follows, unless the template ends with it.
composed AS (
    SELECT
        item_id,
        title,
        category,
        brand,
        price,
        trim({{before}} || array_to_string(list_transform(
            parts,
            lambda part, place: part.word || CASE WHEN place < len(parts) OR part.last THEN part.after ELSE '' END
        ), '')) AS spelled_text
    FROM filled
)
SELECT
    item_id, title, category, brand, price,
    CASE WHEN {{lowercase}} THEN lower(spelled_text) ELSE spelled_text END AS text,
    sha256(text) AS text_hash
FROM composed
