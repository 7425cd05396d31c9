"""Trainings as runs of a study: no server stands, and frameworks take turns by epochs."""
