"""The console: a page for people on what happened between the bank and one customer, and why each decision was made."""
