"""Carries out a plan: starts deployments, offers load, watches the machine, writes the run directory."""
