"""Two runs side by side, as one page that a reviewer can trust."""
