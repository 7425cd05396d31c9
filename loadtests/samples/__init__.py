"""What a load leaves behind: samples as columns, their summary, and the Prometheus page."""
