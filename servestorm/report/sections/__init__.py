"""The sections of the report, one file each: figure, caption, table and data of one subject."""
