"""The report of a run: HTML page, Markdown and terminal table. It formats and draws results, and computes none."""
