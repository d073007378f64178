"""Messages and topics of the node: statistics, diagnostics, key frames, mosaics."""
