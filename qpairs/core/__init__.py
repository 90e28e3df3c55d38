"""What every part stands on: exceptions, atomic files and locks, manifests, progress."""
