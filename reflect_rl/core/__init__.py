"""What every room stands on: errors, paths, files, settings, profiles, and the identity of a result."""
