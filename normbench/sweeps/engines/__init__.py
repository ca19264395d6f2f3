"""What does the runs of a plan: processes of this machine, or of others."""
