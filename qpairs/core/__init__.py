"""What every part uses: exceptions, atomic files and locks, manifests, progress."""
