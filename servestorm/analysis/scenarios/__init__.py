"""The figures of each scenario, one file a scenario, and the table that lists them."""
