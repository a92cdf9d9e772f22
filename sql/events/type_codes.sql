-- type_codes: a small number for each event type, from 0.  Views: events.
SELECT event_type, row_number() OVER (ORDER BY event_type) - 1 AS code
FROM (SELECT DISTINCT event_type FROM events)
