"""Plain TCP: stations that know no MQTT connect here, each source on a port of its own."""
