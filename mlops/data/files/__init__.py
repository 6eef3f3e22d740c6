"""Tables as they lie on a disk, each kind of file read to columns."""
