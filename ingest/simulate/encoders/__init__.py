"""What devices send: readings to bytes, one encoder a codec, found by the codec's name."""
