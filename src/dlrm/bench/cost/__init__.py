"""What operators have to do, what that takes at a machine's limits, and what it takes really."""
