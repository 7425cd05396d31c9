"""Everything that imports Locust: the user class, the roles of a process (alone, master, worker), its statistics."""
