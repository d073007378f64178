"""Commands of the lab, one module a command; measuring code is imported inside, so that ``--help`` needs no torch."""
