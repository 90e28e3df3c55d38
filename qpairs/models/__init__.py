"""Models that score pairs, checkpoints and exports in folders, behind one protocol."""
