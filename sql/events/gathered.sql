-- gathered: one row a session that starts at {{first_us}} or later and before {{last_us}}, in microseconds since the year 1.
-- Views: linked, user_codes.
WITH grouped AS (
    SELECT
        any_value(who) AS who,
        any_value(source_session) AS source_session,
        min(moment) AS first_moment,
        max(moment) AS last_moment,
        -- Gathered by several threads in any order; the position in the upper bits restores it.
        list_sort(list(packed)) AS events,
        list_sort(list(moment)) AS moments,
        -- Sums of fractions depend on the order, sums of millionths do not.
        sum(round(value * 1e6)::HUGEINT) / 1e6 AS value,
        sum(round(weight * 1e6)::HUGEINT) / 1e6 AS weight
    FROM linked
    GROUP BY session
    HAVING first_moment >= {{first_us}} AND first_moment < {{last_us}}
)
SELECT
    * EXCLUDE (who, code, events),
    [(event >> 8) & 16_777_215 FOR event IN events IF (event >> 8) & 16_777_215 > 0] AS item_codes,
    [(event & 255) + 1 FOR event IN events] AS type_codes
FROM grouped
JOIN user_codes ON user_codes.code = who
