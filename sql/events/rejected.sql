-- rejected: the raw rows that are no events, each with the first reason that applies. They are few; what are events is all else.
-- Views: raw_events, alike, duplicates, bots, items.  Placeholders are cleaning settings.
WITH catalogue AS (
    SELECT item_id, list_contains({{exclude_categories}}, category[1]) AS excluded
    FROM items
    WHERE {{require_known_item}} OR len({{exclude_categories}}) > 0
),
found AS (
    SELECT
        raw.*,
        CASE
            WHEN flaw(raw) IS NOT NULL THEN flaw(raw)
            WHEN {{require_known_item}} AND catalogue.item_id IS NULL THEN 'unknown_item'
            WHEN catalogue.excluded THEN 'excluded_item'
            WHEN {{require_known_type}} AND NOT list_contains({{known_types}}, coalesce(event_type, {{default_type}}))
            THEN 'unknown_type'
            WHEN {{require_quantity}} AND quantity <= 0 THEN 'non_positive_quantity'
            WHEN {{require_value}} AND value <= 0 THEN 'non_positive_value'
            ELSE bots.reason
        END AS reason
    FROM raw_events AS raw
    LEFT JOIN catalogue ON catalogue.item_id = raw.item_id
    LEFT JOIN bots ON bots.day = raw.day AND bots.user_id = raw.user_id
)
SELECT * FROM found ANTI JOIN duplicates USING (source_file, source_row) WHERE reason IS NOT NULL
UNION ALL
SELECT alike.*, 'duplicate' FROM alike SEMI JOIN duplicates USING (source_file, source_row)
