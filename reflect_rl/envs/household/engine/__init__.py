"""TextWorld's PDDL engine: the engine, what is changed in TextWorld, and the processes that it runs in."""
