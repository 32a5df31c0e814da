"""ALFWorld's household tasks as text games, played on TextWorld's own engine."""
