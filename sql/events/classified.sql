-- One pass over raw_events: each row gets the identity of its event and, if it is no event, the first reason that applies.
-- Views: raw_events, items.  {{start}} and {{end}} bound the calendar; the other placeholders are cleaning settings.
WITH identified AS (
    SELECT
        *,
        -- Without a source id, what identifies an event is who did what, when, and for how much.
        -- A list keeps the fields apart, whatever they hold and whichever are missing.
        coalesce(
            event_id,
            md5(to_json([
                user_id, item_id, event_type, epoch_us(ts)::VARCHAR, value::VARCHAR, quantity::VARCHAR, session_id, text
            ]))
        ) AS identity,
        CASE
            WHEN unparsed IS NOT NULL THEN 'unreadable_field'
            WHEN user_id IS NULL THEN 'missing_user'
            WHEN ts IS NULL THEN 'missing_time'
            WHEN ts < {{start}}::TIMESTAMPTZ OR ts >= {{end}}::TIMESTAMPTZ THEN 'outside_calendar'
            WHEN event_type IS NULL THEN 'missing_type'
        END AS flaw
    FROM raw_events
),
-- Only rows whose identity stands more than once are ranked: a window over everything would sort everything. A row that is
-- no event by itself does not make a later, sound one its duplicate.
repeated AS (
    SELECT day, identity FROM identified WHERE flaw IS NULL GROUP BY day, identity HAVING count(*) > 1
),
later AS (
    SELECT source_file, source_row
    FROM identified JOIN repeated USING (day, identity)
    WHERE flaw IS NULL
    QUALIFY row_number() OVER (PARTITION BY day, identity ORDER BY source_file, source_row) > 1
),
bots AS (
    SELECT day, user_id
    FROM raw_events
    WHERE {{max_events_per_user_day}} IS NOT NULL AND user_id IS NOT NULL
    GROUP BY day, user_id
    HAVING count(*) > {{max_events_per_user_day}}
)
SELECT
    raw.* EXCLUDE (flaw),
    CASE
        WHEN raw.flaw IS NOT NULL THEN raw.flaw
        WHEN later.source_row IS NOT NULL THEN 'duplicate'
        WHEN {{require_known_item}} AND items.item_id IS NULL THEN 'unknown_item'
        WHEN list_contains({{exclude_categories}}, items.category[1]) THEN 'excluded_item'
        WHEN {{require_quantity}} AND raw.quantity <= 0 THEN 'non_positive_quantity'
        WHEN {{require_value}} AND raw.value <= 0 THEN 'non_positive_value'
        WHEN bots.user_id IS NOT NULL THEN 'bot_rate'
    END AS reason
FROM identified AS raw
LEFT JOIN later ON later.source_file = raw.source_file AND later.source_row = raw.source_row
LEFT JOIN items ON items.item_id = raw.item_id
LEFT JOIN bots ON bots.day = raw.day AND bots.user_id = raw.user_id
