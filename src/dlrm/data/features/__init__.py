"""What becomes of raw columns: numbers, categories, lists, and what is fitted to them."""
