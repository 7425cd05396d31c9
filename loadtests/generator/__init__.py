"""The open-loop generator: sends requests when they are due over its own connections, and stamps every one."""
