-- refused: the raw rows that are no events whatever other rows hold, each with the first reason that applies.
-- Views: raw_events, items.  Placeholders are cleaning settings.
WITH catalogue AS (
    SELECT item_id, list_contains({{exclude_categories}}, category[1]) AS excluded
    FROM items
    WHERE {{require_known_item}} OR len({{exclude_categories}}) > 0
)
SELECT
    raw.*,
    coalesce(
        flaw(raw),
        CASE
            WHEN {{require_known_item}} AND catalogue.item_id IS NULL THEN 'unknown_item'
            WHEN catalogue.excluded THEN 'excluded_item'
            WHEN {{require_known_type}} AND NOT list_contains({{known_types}}, coalesce(event_type, {{default_type}}))
            THEN 'unknown_type'
            WHEN {{require_quantity}} AND quantity <= 0 THEN 'non_positive_quantity'
            WHEN {{require_value}} AND value <= 0 THEN 'non_positive_value'
        END
    ) AS reason
FROM raw_events AS raw
-- Where nothing asks for it, items are not even looked at.
LEFT JOIN catalogue ON catalogue.item_id = CASE WHEN {{require_known_item}} OR len({{exclude_categories}}) > 0 THEN raw.item_id END
WHERE reason IS NOT NULL
