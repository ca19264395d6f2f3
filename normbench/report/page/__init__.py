"""Everything on one HTML page."""
