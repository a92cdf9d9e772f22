-- Instacart order lines on an invented calendar (see the preset): a customer's last order falls into the week from 2017-12-24,
-- on its weekday; each earlier one lies as many days before as the days between orders add up to.
-- A line whose order is unknown has no user and is quarantined.
WITH dated AS (
    SELECT
        order_id,
        user_id,
        DATE '2017-12-24'
            + last_value(order_dow::INTEGER) OVER later
            - coalesce(sum(days_since_prior_order::DOUBLE) OVER after_this, 0)::INTEGER AS day,
        order_hour_of_day::INTEGER AS hour
    FROM orders
    WINDOW
        later AS (
            PARTITION BY user_id ORDER BY order_number::INTEGER
            ROWS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING
        ),
        after_this AS (
            PARTITION BY user_id ORDER BY order_number::INTEGER
            ROWS BETWEEN 1 FOLLOWING AND UNBOUNDED FOLLOWING
        )
)
SELECT
    lines.order_id || '-' || product_id AS event_id,
    user_id,
    product_id AS item_id,
    'purchase' AS event_type,
    day::TIMESTAMP + to_hours(hour) AS ts,
    lines.order_id AS session_id,
    source_file,
    source_row
FROM source_events AS lines
LEFT JOIN dated ON dated.order_id = lines.order_id
