"""Releases of the chart on a Kubernetes cluster."""
