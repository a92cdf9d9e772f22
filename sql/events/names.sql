-- names: one row with the spellings of all codes, in their order.  Views: item_codes, type_codes.
SELECT
    (SELECT coalesce(list(item_id ORDER BY code), []) FROM item_codes) AS item_names,
    (SELECT coalesce(list(title ORDER BY code), []) FROM item_codes) AS titles,
    (SELECT coalesce(list(event_type ORDER BY code), []) FROM type_codes) AS type_names
