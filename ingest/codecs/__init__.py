"""Payload formats: bytes of one message to readings in the source's own words, and whose they are."""
