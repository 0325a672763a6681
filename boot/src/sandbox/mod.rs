//! The patch sandbox: a micro-VM that mounts a guest's file systems, and nothing else.
