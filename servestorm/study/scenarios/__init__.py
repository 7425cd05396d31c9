"""What each scenario asks of a deployment, one file a scenario, and the table that lists them."""
