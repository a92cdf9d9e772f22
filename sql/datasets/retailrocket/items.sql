-- Retailrocket products. Properties are weekly snapshots in long form; of those with a readable name only the category is of
-- use here. The latest one counts.
WITH RECURSIVE latest AS (
    SELECT itemid, arg_max(value, TRY_CAST("timestamp" AS BIGINT)) AS categoryid
    FROM source_items
    WHERE property = 'categoryid'
    GROUP BY itemid
),
-- Every category with the path from the widest one down to it.
paths AS (
    SELECT categoryid, ['category ' || categoryid] AS path
    FROM category_tree
    WHERE parentid IS NULL OR trim(parentid) = ''
    UNION ALL
    SELECT child.categoryid, list_append(paths.path, 'category ' || child.categoryid)
    FROM category_tree AS child
    JOIN paths ON paths.categoryid = child.parentid
)
SELECT
    known.itemid AS item_id,
    NULL::VARCHAR AS title,
    -- A category that the tree lacks stands for itself.
    coalesce(paths.path, CASE WHEN latest.categoryid IS NOT NULL THEN ['category ' || latest.categoryid] END) AS category,
    NULL::VARCHAR AS brand,
    NULL::DOUBLE AS price
FROM (SELECT DISTINCT itemid FROM source_items) AS known
LEFT JOIN latest USING (itemid)
LEFT JOIN paths USING (categoryid)
