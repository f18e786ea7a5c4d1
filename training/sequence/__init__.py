"""A model over whole histories: events as tokens, for batch scoring."""
