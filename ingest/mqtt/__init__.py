"""MQTT 3.1.1 and 5: codec and sessions without IO, and the sockets under them."""
