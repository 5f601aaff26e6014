"""The whole city: 365 information systems, each speaking as its own devices do."""
