"""The simulated bank: its catalogue, its people, what they do, what the bank sends, and the truth behind it."""
