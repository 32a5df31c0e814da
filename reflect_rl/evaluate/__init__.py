"""Episodes on fixed panels, probes of the reflector, prompted models, and the statistics of success."""
