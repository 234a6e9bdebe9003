"""Cost tables: which rows a table has, the store of results, the table itself and what is read from it."""
