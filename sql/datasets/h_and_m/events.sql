-- H&M purchase lines. Equal lines are several pieces of one article, so a line is told from its copy by where it stands.
SELECT
    source_file || ':' || source_row AS event_id,
    customer_id AS user_id,
    article_id AS item_id,
    CASE trim(sales_channel_id) WHEN '1' THEN 'store_purchase' WHEN '2' THEN 'online_purchase' END AS event_type,
    t_dat AS ts,
    price AS value,
    source_file,
    source_row
FROM source_events
