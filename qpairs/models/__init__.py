"""What a folder holds that judges pairs: bi-encoder checkpoints and exports, behind one protocol."""
