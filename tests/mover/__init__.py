"""What the data mover promises: round trips, resumption, obedience, and clean failures."""
