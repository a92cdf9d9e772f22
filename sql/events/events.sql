-- events: the raw rows that are not rejected, with missing values filled in by rule.
-- Views: raw_events, rejected, items.  Placeholders are `cleaning.impute` and the weights of event types.
WITH prices AS (
    SELECT item_id, price FROM items WHERE {{value_rule}} = 'item_price'
),
medians AS (
    SELECT day, item_id, median(value) AS value
    FROM raw_events ANTI JOIN rejected USING (source_file, source_row)
    WHERE {{value_rule}} = 'item_median'
    GROUP BY day, item_id
),
filled AS (
    SELECT
        raw.*,
        coalesce(raw.event_type, {{default_type}}) AS filled_type,
        coalesce(raw.quantity, {{default_quantity}}) AS filled_quantity,
        coalesce(
            raw.value, {{default_value}}, prices.price * coalesce(raw.quantity, {{default_quantity}}, 1), medians.value
        ) AS filled_value
    FROM raw_events AS raw
    ANTI JOIN rejected USING (source_file, source_row)
    LEFT JOIN prices ON prices.item_id = raw.item_id
    LEFT JOIN medians ON medians.day = raw.day AND medians.item_id = raw.item_id
)
SELECT
    day,
    coalesce(
        event_id,
        -- A list keeps the fields apart, whatever they hold and whichever are missing.
        md5(to_json([
            user_id, item_id, event_type, epoch_us(ts)::VARCHAR, value::VARCHAR, quantity::VARCHAR, session_id, text
        ]))
    ) AS event_id,
    user_id,
    item_id,
    filled_type AS event_type,
    ts,
    filled_value AS value,
    filled_quantity AS quantity,
    CASE WHEN {{has_weights}} THEN coalesce({{type_weights}}[filled_type], 1) ELSE 1 END AS weight,
    session_id,
    text,
    nullif(concat_ws(
        ', ',
        CASE WHEN event_type IS NULL AND filled_type IS NOT NULL THEN 'event_type' END,
        CASE WHEN quantity IS NULL AND filled_quantity IS NOT NULL THEN 'quantity' END,
        CASE WHEN value IS NULL AND filled_value IS NOT NULL THEN 'value' END
    ), '') AS imputed,
    source_file,
    source_row
FROM filled
