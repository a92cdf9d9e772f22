-- source_files: what is known of unchanged files, and a look at the others.
-- Views: kept_files; file_contents, what lies in the others; changed_files, facts about these.
SELECT * FROM kept_files
UNION ALL BY NAME
SELECT
    file_contents.* EXCLUDE (due),
    -- Rows of a joined input have a file that is not in the list of event files.
    coalesce(size, 0) AS size,
    coalesce(modified, 0) AS modified,
    drift,
    -- With rows of days to come, the file is looked into again when the first of these days is there.
    concat_ws(' until ', {{version}}, due::VARCHAR) AS mapping
FROM file_contents
LEFT JOIN changed_files USING (file)
UNION ALL BY NAME
-- An empty file is remembered too, or it would be opened again and again.
SELECT file, {{first_day}} AS day, 0 AS rows, 'empty' AS digest, size, modified, drift, {{version}} AS mapping
FROM changed_files
WHERE file NOT IN (SELECT file FROM file_contents)
