"""The contract, and everything durable."""
