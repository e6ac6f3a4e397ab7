"""Terms that are added to an objective, or replace one of its parts."""
