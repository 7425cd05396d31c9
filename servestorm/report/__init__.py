"""What a person reads: the HTML page, Markdown and the terminal table. No number is computed here."""
