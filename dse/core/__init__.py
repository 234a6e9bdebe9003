"""What every other package reads files and reports errors with; it imports none of them."""
