"""What is known of a customer: catalogue, timeline, feature views, the one row builder."""
