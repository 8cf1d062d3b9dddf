"""What calls cost and what the cache saved: books, prices, budgets, estimates of tokens."""
