"""Payloads to columns or refusals."""
