"""Collected results, and the tables, claims and figures that are made from them alone."""
