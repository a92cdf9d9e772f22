-- sessions that start on a day in [{{first}}, {{last}}).  Views: linked; names, one row with the spellings of all codes.
WITH gathered AS (
    SELECT
        any_value(user_id) AS user_id,
        any_value(source_session) AS source_session,
        make_timestamptz(min(moment) - 62_135_596_800_000_000) AS start,
        make_timestamptz(max(moment) - 62_135_596_800_000_000) AS "end",
        -- Gathered by several threads in any order; the position in the upper bits restores it.
        list_sort(list(packed)) AS events,
        list_sort(list(moment)) AS moments,
        -- Sums of fractions depend on the order: a sorted list is always summed the same way.
        list_sum(list_sort(list(value))) AS value,
        list_sum(list_sort(list(weight))) AS weight
    FROM linked
    GROUP BY session
    HAVING start >= {{first}}::TIMESTAMPTZ AND start < {{last}}::TIMESTAMPTZ
),
unpacked AS (
    SELECT
        *,
        [(event >> 8) & 16_777_215 FOR event IN events IF (event >> 8) & 16_777_215 > 0] AS items,
        [type_names[(event & 255) + 1] FOR event IN events] AS types
    FROM gathered, names
),
distinguished AS (
    SELECT *, list_filter(items, lambda item, place: list_position(items, item) = place) AS different FROM unpacked
)
SELECT
    start::DATE AS day,
    coalesce(source_session, user_id || '@' || strftime(start, '%Y%m%dT%H%M%S.%f')) AS session_id,
    user_id,
    start,
    "end",
    (epoch_us("end") - epoch_us(start)) / 1e6 AS duration,
    len(events)::INTEGER AS events,
    list_aggregate(types, 'histogram') AS type_counts,
    len(different)::INTEGER AS distinct_items,
    value,
    weight,
    [item_names[item] FOR item IN items] AS items,
    types AS event_types,
    list_transform(
        moments, lambda moment, place: CASE WHEN place = 1 THEN 0 ELSE (moment - moments[place - 1]) / 1e6 END
    ) AS gaps,
    nullif(array_to_string([titles[item] FOR item IN different], '; '), '') AS text
FROM distinguished
