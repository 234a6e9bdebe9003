"""The paper's figures, made anew: protocols (what is run), figures (what is shown), claims (what it says)."""
