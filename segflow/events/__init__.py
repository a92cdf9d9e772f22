"""Source rows to clean events and sessions, in DuckDB SQL. Pure: tables in, relations out."""
