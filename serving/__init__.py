"""What is decided for a customer: score, arbitrate, choose with an exact propensity, render, record."""
