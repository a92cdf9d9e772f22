-- quarantined_events: the rejected rows as they came, with the reason.  Views: raw_events, rejected.
SELECT raw.*, reason
FROM raw_events AS raw
JOIN rejected USING (source_file, source_row)
