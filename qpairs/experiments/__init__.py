"""Many training runs to one answer: losses compared, labels audited."""
