-- source_files: what is known of unchanged files, and a look at the others.
-- Views: kept_files; mapped_rows, the rows of the other files in the event schema; changed_files, facts about these.
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
        )) AS digest
    FROM mapped_rows
    GROUP BY source_file, day
),
placed AS (
    -- A row without a usable date lies with the last day of its file, so that it touches no other day than its file does.
    SELECT file, coalesce(day, max(day) OVER (PARTITION BY file), {{first_day}}) AS day, rows, digest FROM looked_at
),
gathered AS (
    SELECT file, day, sum(rows)::BIGINT AS rows, md5(string_agg(digest ORDER BY digest)) AS digest
    FROM placed
    GROUP BY file, day
)
SELECT * FROM kept_files
UNION ALL BY NAME
SELECT
    gathered.*,
    -- Rows of a joined input have a file that is not in the list of event files.
    coalesce(size, 0) AS size,
    coalesce(modified, 0) AS modified,
    drift,
    {{version}} AS mapping
FROM gathered
LEFT JOIN changed_files USING (file)
UNION ALL BY NAME
-- An empty file is remembered too, or it would be opened again and again.
SELECT file, {{first_day}} AS day, 0 AS rows, 'empty' AS digest, size, modified, drift, {{version}} AS mapping
FROM changed_files
WHERE file NOT IN (SELECT file FROM looked_at)
