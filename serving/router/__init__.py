"""A reference for those who deliver: take decisions, send them through real channels, say what became of them."""
