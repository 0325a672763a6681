//! One guest from disks to patched overlay: find the volumes, find the root, mount, plan, apply.
