"""Which pools an interface may draw from: the same answer at admission, at an attach and in `orbweaver explain`."""
