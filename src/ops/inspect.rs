//! What is in a machine, what has to change for a target, and the change itself, in overlays.
