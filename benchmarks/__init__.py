"""What is fast and what is not, measured beside the peers in the same run."""
