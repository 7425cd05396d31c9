"""The sections of the report, one file a subject: its figure, caption, table and data."""
