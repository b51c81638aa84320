"""The site of the documentation: what `make docs` builds from the pages in docs/ and from the code."""
