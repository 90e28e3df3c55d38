"""From sources to a question table and a pair table, and to training, validation and test parts."""
