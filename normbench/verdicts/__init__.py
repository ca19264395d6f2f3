"""What a claim registers, and how records become a verdict; without torch."""
