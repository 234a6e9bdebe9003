"""What a finished run shows: figures, tables of text, and its page."""
