"""The paper's figures, made again: protocols (what is run), figures (what is shown), claims (what it says)."""
