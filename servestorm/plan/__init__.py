"""From YAML to a typed plan, and from the plan to its cells."""
