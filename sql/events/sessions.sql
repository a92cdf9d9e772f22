-- sessions: the gathered sessions, spelled out.  Views: gathered; names, one row with the spellings of all codes.
-- The long lists of names are looked up in one step and never carried on: rows that held them would fill any memory.
WITH told AS (
    SELECT
        *,
        list_filter(item_codes, lambda code, place: list_position(item_codes, code) = place) AS different,
        make_timestamp(first_moment - 62_135_596_800_000_000) AS started
    FROM gathered
),
spelled AS (
    SELECT
        told.*,
        [item_names[code] FOR code IN item_codes] AS items,
        [type_names[code] FOR code IN type_codes] AS event_types,
        nullif(array_to_string([titles[code] FOR code IN different], '; '), '') AS text
    FROM told, names
)
SELECT
    started::DATE AS day,
    coalesce(source_session, user_id || '@' || strftime(started, '%Y%m%dT%H%M%S.%f')) AS session_id,
    user_id,
    make_timestamptz(first_moment - 62_135_596_800_000_000) AS start,
    make_timestamptz(last_moment - 62_135_596_800_000_000) AS "end",
    (last_moment - first_moment) / 1e6 AS duration,
    len(event_types)::INTEGER AS events,
    list_aggregate(event_types, 'histogram') AS type_counts,
    len(different)::INTEGER AS distinct_items,
    value,
    weight,
    items,
    event_types,
    list_transform(
        moments, lambda moment, place: CASE WHEN place = 1 THEN 0 ELSE (moment - moments[place - 1]) / 1e6 END
    ) AS gaps,
    text
FROM spelled
