"""Boot proofs, with real firmware, boot loader and kernel."""
