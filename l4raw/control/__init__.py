"""What may be slow: configuration, neighbours, ARP, the undo journal. Not on the packet thread."""
