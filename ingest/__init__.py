"""From the wire to the journal, and the composition of the engine."""
