"""What lies on disks and how it gets from there: mounts and their limits, reads and writes, tensors in files."""
