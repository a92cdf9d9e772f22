-- file_codes: a small number for each source file, in the order of their names.  Views: events.
SELECT source_file, row_number() OVER (ORDER BY source_file) AS code
FROM (SELECT DISTINCT source_file FROM events)
