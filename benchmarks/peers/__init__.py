"""Drivers of other people's programs, so that they run the same shape on the same device as ours."""
