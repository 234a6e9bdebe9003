"""Networks to search, written as plain torch modules."""
