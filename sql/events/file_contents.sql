-- file_contents: what each file holds of each day: how many rows, and a digest that does not depend on their order.
-- Views: mapped_rows, in the event schema; the day is NULL where a row has no usable date.
-- due: the first day to come, from {{first_to_come}} on, that a row of the file is dated; NULL where none is.
WITH looked_at AS (
    SELECT
        source_file AS file,
        day,
        count(*) AS rows,
        -- Sums of hashes do not depend on the order of rows; two of them make an accidental match unthinkable.
        md5(concat_ws(
            ':',
            count(*),
            sum(hash(source_row, event_id, user_id, item_id, event_type, ts, value, quantity, session_id, text, unparsed)::HUGEINT),
            bit_xor(hash(unparsed, text, session_id, quantity, value, ts, event_type, item_id, user_id, event_id, source_row))
        )) AS digest,
        min(make_timestamp(epoch_us(ts))::DATE) FILTER (day IS NULL AND make_timestamp(epoch_us(ts))::DATE >= {{first_to_come}}) AS ahead
    FROM mapped_rows
    GROUP BY source_file, day
),
placed AS (
    -- A row without a usable date lies with the last day of its file, so that it touches no other day than its file does.
    SELECT file, coalesce(day, max(day) OVER (PARTITION BY file), {{first_day}}) AS day, rows, digest, ahead FROM looked_at
)
SELECT
    file,
    day,
    sum(rows)::BIGINT AS rows,
    md5(string_agg(digest ORDER BY digest)) AS digest,
    min(min(ahead)) OVER (PARTITION BY file) AS due
FROM placed
GROUP BY file, day
