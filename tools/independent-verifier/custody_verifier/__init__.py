"""A second reader of Custody's formats, written from docs/formats alone."""
