"""What is wrong, and who must know."""
